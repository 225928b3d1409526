//! Vectors of `f32` as kernels use them: one trait, three instruction sets.

/// A vector of `N` floats of some instruction set.
///
/// A kernel is written once, generic over this trait, and compiled for each set inside a function
/// that enables it. All methods are `unsafe`: the caller has seen that the machine has the set
/// ([`Isa`](crate::Isa) has), and pointers reach over `N` values.
#[expect(
    clippy::missing_safety_doc,
    reason = "one contract for all methods, stated above"
)]
pub trait Lanes: Copy {
    /// Floats of a vector.
    const N: usize;
    /// `N` integers of 32 bits.
    type Noise: Copy;

    /// Reads `N` floats, at any alignment.
    unsafe fn load(from: *const f32) -> Self;
    /// Writes `N` floats, at any alignment.
    unsafe fn store(self, to: *mut f32);
    /// Reads `N` halves.
    unsafe fn load_half(from: *const u16) -> Self;
    /// Writes `N` halves, each rounded down or up in proportion to how near it lies, as the upper
    /// bits of `noise` decide.
    unsafe fn store_half(self, to: *mut u16, noise: Self::Noise);
    /// Noise of the elements at positions `start..start + N`: the same element has the same noise
    /// whatever `N` is.
    unsafe fn noise(start: u32) -> Self::Noise;
    /// All lanes the same.
    unsafe fn splat(value: f32) -> Self;
    /// `self + other`.
    unsafe fn add(self, other: Self) -> Self;
    /// `self − other`.
    unsafe fn sub(self, other: Self) -> Self;
    /// `self × other`.
    unsafe fn mul(self, other: Self) -> Self;
    /// `self / other`.
    unsafe fn div(self, other: Self) -> Self;
    /// `self × factor + term`.
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self;
    /// `term − self × factor`.
    unsafe fn neg_mul_add(self, factor: Self, term: Self) -> Self;
    /// The greater of the two.
    unsafe fn max(self, other: Self) -> Self;
    /// Square root.
    unsafe fn sqrt(self) -> Self;
    /// `1 / √self` as the instruction set estimates it, of 11 bits or more.
    unsafe fn rsqrt_estimate(self) -> Self;
    /// `1 / √self`, one Newton step better than the estimate: 22 bits or more.
    #[inline(always)]
    unsafe fn rsqrt(self) -> Self {
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            let r = self.rsqrt_estimate();
            let half = self.mul(Self::splat(0.5)).mul(r);
            r.mul(half.neg_mul_add(r, Self::splat(1.5)))
        }
    }
    /// 2ⁿ, of a whole n from −127 on that `1.5 · 2²³` was added to; 2⁻¹²⁷ is taken for 0.
    unsafe fn two_to(self) -> Self;
    /// eˣ for x ≤ 88, within 2 units of its last place; 0 below −87.7, and NaN of NaN.
    #[inline(always)]
    unsafe fn exp(self) -> Self {
        // In memory a float of this size ends with the whole number that was added to it.
        const WHOLE: f32 = 12_582_912.0;
        // ln 2 in two parts, the first with so few bits that its multiples are exact.
        const LN_2: [f32; 2] = [355.0 / 512.0, -2.121_944_4e-4];
        // The Taylor series, cut off where it is below half a unit for |x| ≤ ½ ln 2.
        const TERMS: [f32; 6] = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0];
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            // In this order a NaN is kept.
            let x = Self::splat(-88.0).max(self);
            let n = x.mul_add(Self::splat(std::f32::consts::LOG2_E), Self::splat(WHOLE));
            let whole = n.sub(Self::splat(WHOLE));
            let x = whole.neg_mul_add(Self::splat(LN_2[0]), x);
            let x = whole.neg_mul_add(Self::splat(LN_2[1]), x);
            let mut sum = Self::splat(1.0 / 5040.0);
            for term in TERMS {
                sum = sum.mul_add(x, Self::splat(term));
            }
            sum.mul_add(x, Self::splat(1.0)).mul(n.two_to())
        }
    }
    /// `self` where `other` is not zero, else zero.
    unsafe fn where_nonzero(self, other: Self) -> Self;
    /// `self` where `|other| > bound`, else zero.
    unsafe fn where_above(self, other: Self, bound: Self) -> Self;
    /// `self` with the sign of `other`.
    unsafe fn copy_sign(self, other: Self) -> Self;
    /// Sum of all lanes, always in the same order.
    unsafe fn sum(self) -> f32;
    /// The [`sum`](Self::sum) of each of four vectors, to the bit; together they take fewer
    /// instructions than one by one.
    #[inline(always)]
    unsafe fn sums(vectors: [Self; 4]) -> [f32; 4] {
        let [a, b, c, d] = vectors;
        // SAFETY: the caller vouches for the instruction set.
        unsafe { [a.sum(), b.sum(), c.sum(), d.sum()] }
    }
    /// Vectors of `G` parts each, the matrix of parts transposed.
    unsafe fn transpose<const G: usize>(rows: [Self; G]) -> [Self; G];
    /// The vector with part `part` of `G` set to zero.
    unsafe fn without_part<const G: usize>(self, part: usize) -> Self;
}

/// An odd number near 2³² / φ: its multiples spread evenly over all 32-bit numbers.
pub(crate) const GOLDEN: u32 = 0x9E37_79B1;

/// What the compiler makes of plain loops: the reference that the others are held to.
#[derive(Clone, Copy, Debug)]
pub struct Portable<const N: usize>([f32; N]);

impl<const N: usize> Portable<N> {
    #[inline(always)]
    fn map(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

impl<const N: usize> Lanes for Portable<N> {
    const N: usize = N;
    type Noise = [u32; N];

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's pointer reaches over N floats; an array has their alignment.
        Self(unsafe { from.cast::<[f32; N]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as in `load`.
        unsafe { to.cast::<[f32; N]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn load_half(from: *const u16) -> Self {
        // SAFETY: the caller's pointer reaches over N halves.
        let halves = unsafe { from.cast::<[u16; N]>().read_unaligned() };
        Self(halves.map(|half| f32::from_bits(u32::from(half) << 16)))
    }
    #[inline(always)]
    unsafe fn store_half(self, to: *mut u16, noise: [u32; N]) {
        let halves: [u16; N] = std::array::from_fn(|i| {
            (self.0[i].to_bits().wrapping_add(noise[i] >> 16) >> 16) as u16
        });
        // SAFETY: the caller's pointer reaches over N halves.
        unsafe { to.cast::<[u16; N]>().write_unaligned(halves) }
    }
    #[inline(always)]
    unsafe fn noise(start: u32) -> [u32; N] {
        std::array::from_fn(|i| start.wrapping_add((i as u32).wrapping_mul(GOLDEN)))
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; N])
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.map(other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.map(other, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.map(other, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self.map(other, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] * factor.0[i] + term.0[i]))
    }
    #[inline(always)]
    unsafe fn neg_mul_add(self, factor: Self, term: Self) -> Self {
        Self(std::array::from_fn(|i| term.0[i] - self.0[i] * factor.0[i]))
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.map(other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn sqrt(self) -> Self {
        Self(self.0.map(f32::sqrt))
    }
    #[inline(always)]
    unsafe fn rsqrt_estimate(self) -> Self {
        Self(self.0.map(|a| 1.0 / a.sqrt()))
    }
    #[inline(always)]
    unsafe fn rsqrt(self) -> Self {
        // The estimate is exact here.
        Self(self.0.map(|a| 1.0 / a.sqrt()))
    }
    #[inline(always)]
    unsafe fn two_to(self) -> Self {
        let power = |n: f32| f32::from_bits((n.to_bits() << 23).wrapping_add(127 << 23));
        Self(self.0.map(power))
    }
    #[inline(always)]
    unsafe fn where_nonzero(self, other: Self) -> Self {
        self.map(other, |a, b| if b != 0.0 { a } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn where_above(self, other: Self, bound: Self) -> Self {
        Self(std::array::from_fn(|i| {
            if other.0[i].abs() > bound.0[i] {
                self.0[i]
            } else {
                0.0
            }
        }))
    }
    #[inline(always)]
    unsafe fn copy_sign(self, other: Self) -> Self {
        self.map(other, f32::copysign)
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let mut half = N / 2;
        let mut sums = self.0;
        while half > 0 {
            for i in 0..half {
                sums[i] += sums[i + half];
            }
            half /= 2;
        }
        sums[0]
    }
    #[inline(always)]
    unsafe fn transpose<const G: usize>(rows: [Self; G]) -> [Self; G] {
        let width = N / G;
        std::array::from_fn(|i| {
            Self(std::array::from_fn(|at| {
                rows[at / width].0[i * width + at % width]
            }))
        })
    }
    #[inline(always)]
    unsafe fn without_part<const G: usize>(self, part: usize) -> Self {
        let width = N / G;
        Self(std::array::from_fn(|at| {
            if at / width == part { 0.0 } else { self.0[at] }
        }))
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{GOLDEN, Lanes};

    /// Eight floats; needs AVX2 and FMA.
    #[derive(Clone, Copy, Debug)]
    pub struct Avx2(__m256);

    /// Sixteen floats; needs AVX-512 F, BW, DQ and VL.
    #[derive(Clone, Copy, Debug)]
    pub struct Avx512(__m512);

    const fn lane_noise<const N: usize>() -> [u32; N] {
        let mut noise = [0; N];
        let mut lane = 0;
        while lane < N {
            noise[lane] = (lane as u32).wrapping_mul(GOLDEN);
            lane += 1;
        }
        noise
    }

    static NOISE: [u32; 16] = lane_noise::<16>();
    /// `PARTS[g][part]`: the lanes of eight that are not in that part of `g`.
    static TWO_PARTS: [[u32; 8]; 2] = [[0, 0, 0, 0, !0, !0, !0, !0], [!0, !0, !0, !0, 0, 0, 0, 0]];

    // SAFETY of every block below: the caller has seen that the machine has the instruction set,
    // and vouches for its pointers; the intrinsics ask for nothing else.
    impl Lanes for Avx2 {
        const N: usize = 8;
        type Noise = __m256i;

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm256_loadu_ps(from) })
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: see the impl.
            unsafe { _mm256_storeu_ps(to, self.0) }
        }
        #[inline(always)]
        unsafe fn load_half(from: *const u16) -> Self {
            // SAFETY: see the impl.
            unsafe {
                let halves = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
                Self(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(halves)))
            }
        }
        #[inline(always)]
        unsafe fn store_half(self, to: *mut u16, noise: __m256i) {
            // SAFETY: see the impl.
            unsafe {
                let bits = _mm256_castps_si256(self.0);
                let up = _mm256_add_epi32(bits, _mm256_srli_epi32::<16>(noise));
                let halves = _mm256_srli_epi32::<16>(up);
                let packed = _mm256_packus_epi32(halves, halves);
                let packed = _mm256_permute4x64_epi64::<0b10_00>(packed);
                _mm_storeu_si128(to.cast(), _mm256_castsi256_si128(packed));
            }
        }
        #[inline(always)]
        unsafe fn noise(start: u32) -> __m256i {
            // SAFETY: see the impl; NOISE holds sixteen.
            unsafe {
                let lanes = _mm256_loadu_si256(NOISE.as_ptr().cast());
                _mm256_add_epi32(_mm256_set1_epi32(start as i32), lanes)
            }
        }
        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm256_set1_ps(value) })
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm256_add_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm256_sub_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm256_mul_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn div(self, other: Self) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm256_div_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm256_fmadd_ps(self.0, factor.0, term.0) })
        }
        #[inline(always)]
        unsafe fn neg_mul_add(self, factor: Self, term: Self) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm256_fnmadd_ps(self.0, factor.0, term.0) })
        }
        #[inline(always)]
        unsafe fn max(self, other: Self) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm256_max_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn sqrt(self) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm256_sqrt_ps(self.0) })
        }
        #[inline(always)]
        unsafe fn rsqrt_estimate(self) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm256_rsqrt_ps(self.0) })
        }
        #[inline(always)]
        unsafe fn two_to(self) -> Self {
            // SAFETY: see the impl.
            unsafe {
                let n = _mm256_slli_epi32::<23>(_mm256_castps_si256(self.0));
                Self(_mm256_castsi256_ps(_mm256_add_epi32(
                    n,
                    _mm256_set1_epi32(127 << 23),
                )))
            }
        }
        #[inline(always)]
        unsafe fn where_nonzero(self, other: Self) -> Self {
            // SAFETY: see the impl.
            unsafe {
                let mask = _mm256_cmp_ps::<_CMP_NEQ_UQ>(other.0, _mm256_setzero_ps());
                Self(_mm256_and_ps(self.0, mask))
            }
        }
        #[inline(always)]
        unsafe fn where_above(self, other: Self, bound: Self) -> Self {
            // SAFETY: see the impl.
            unsafe {
                let size = _mm256_andnot_ps(_mm256_set1_ps(-0.0), other.0);
                let mask = _mm256_cmp_ps::<_CMP_GT_OQ>(size, bound.0);
                Self(_mm256_and_ps(self.0, mask))
            }
        }
        #[inline(always)]
        unsafe fn copy_sign(self, other: Self) -> Self {
            // SAFETY: see the impl.
            unsafe {
                let sign = _mm256_set1_ps(-0.0);
                let size = _mm256_andnot_ps(sign, self.0);
                Self(_mm256_or_ps(size, _mm256_and_ps(sign, other.0)))
            }
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            // SAFETY: see the impl.
            unsafe {
                let high = _mm256_extractf128_ps::<1>(self.0);
                let four = _mm_add_ps(_mm256_castps256_ps128(self.0), high);
                let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
            }
        }
        #[inline(always)]
        unsafe fn sums(vectors: [Self; 4]) -> [f32; 4] {
            let [a, b, c, d] = vectors;
            // SAFETY: see the impl.
            unsafe {
                // Each step of `sum` for two vectors at once, then for four.
                let ab = _mm256_add_ps(
                    _mm256_permute2f128_ps::<0x20>(a.0, b.0),
                    _mm256_permute2f128_ps::<0x31>(a.0, b.0),
                );
                let cd = _mm256_add_ps(
                    _mm256_permute2f128_ps::<0x20>(c.0, d.0),
                    _mm256_permute2f128_ps::<0x31>(c.0, d.0),
                );
                let twos = _mm256_add_ps(_mm256_unpacklo_ps(ab, cd), _mm256_unpackhi_ps(ab, cd));
                let ones = _mm256_add_ps(twos, _mm256_shuffle_ps::<0b11_10_11_10>(twos, twos));
                // a and c, b and d.
                let ac = _mm256_castps256_ps128(ones);
                let bd = _mm256_extractf128_ps::<1>(ones);
                let mut sums = [0.0; 4];
                _mm_storeu_ps(sums.as_mut_ptr(), _mm_unpacklo_ps(ac, bd));
                sums
            }
        }
        #[inline(always)]
        unsafe fn transpose<const G: usize>(rows: [Self; G]) -> [Self; G] {
            // SAFETY: see the impl.
            unsafe {
                match G {
                    1 => rows,
                    2 => {
                        let (a, b) = (rows[0].0, rows[1].0);
                        let out = [
                            _mm256_permute2f128_ps::<0x20>(a, b),
                            _mm256_permute2f128_ps::<0x31>(a, b),
                        ];
                        std::array::from_fn(|i| Self(out[i]))
                    }
                    _ => unreachable!("eight lanes are split into one or two parts"),
                }
            }
        }
        #[inline(always)]
        unsafe fn without_part<const G: usize>(self, part: usize) -> Self {
            // SAFETY: see the impl; each mask holds eight.
            unsafe {
                match G {
                    1 => Self(_mm256_setzero_ps()),
                    2 => {
                        let mask = _mm256_loadu_si256(TWO_PARTS[part].as_ptr().cast());
                        Self(_mm256_and_ps(self.0, _mm256_castsi256_ps(mask)))
                    }
                    _ => unreachable!("eight lanes are split into one or two parts"),
                }
            }
        }
    }

    // SAFETY of every block below: as above.
    impl Lanes for Avx512 {
        const N: usize = 16;
        type Noise = __m512i;

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm512_loadu_ps(from) })
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: see the impl.
            unsafe { _mm512_storeu_ps(to, self.0) }
        }
        #[inline(always)]
        unsafe fn load_half(from: *const u16) -> Self {
            // SAFETY: see the impl.
            unsafe {
                let halves = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
                Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves)))
            }
        }
        #[inline(always)]
        unsafe fn store_half(self, to: *mut u16, noise: __m512i) {
            // SAFETY: see the impl.
            unsafe {
                let bits = _mm512_castps_si512(self.0);
                let up = _mm512_add_epi32(bits, _mm512_srli_epi32::<16>(noise));
                let halves = _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(up));
                _mm256_storeu_si256(to.cast(), halves);
            }
        }
        #[inline(always)]
        unsafe fn noise(start: u32) -> __m512i {
            // SAFETY: see the impl; NOISE holds sixteen.
            unsafe {
                let lanes = _mm512_loadu_si512(NOISE.as_ptr().cast());
                _mm512_add_epi32(_mm512_set1_epi32(start as i32), lanes)
            }
        }
        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm512_set1_ps(value) })
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm512_add_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm512_sub_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm512_mul_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn div(self, other: Self) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm512_div_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, term.0) })
        }
        #[inline(always)]
        unsafe fn neg_mul_add(self, factor: Self, term: Self) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm512_fnmadd_ps(self.0, factor.0, term.0) })
        }
        #[inline(always)]
        unsafe fn max(self, other: Self) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm512_max_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn sqrt(self) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm512_sqrt_ps(self.0) })
        }
        #[inline(always)]
        unsafe fn rsqrt_estimate(self) -> Self {
            // SAFETY: see the impl.
            Self(unsafe { _mm512_rsqrt14_ps(self.0) })
        }
        #[inline(always)]
        unsafe fn two_to(self) -> Self {
            // SAFETY: see the impl.
            unsafe {
                let n = _mm512_slli_epi32::<23>(_mm512_castps_si512(self.0));
                Self(_mm512_castsi512_ps(_mm512_add_epi32(
                    n,
                    _mm512_set1_epi32(127 << 23),
                )))
            }
        }
        #[inline(always)]
        unsafe fn where_nonzero(self, other: Self) -> Self {
            // SAFETY: see the impl.
            unsafe {
                let mask = _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(other.0, _mm512_setzero_ps());
                Self(_mm512_maskz_mov_ps(mask, self.0))
            }
        }
        #[inline(always)]
        unsafe fn where_above(self, other: Self, bound: Self) -> Self {
            // SAFETY: see the impl.
            unsafe {
                let mask = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(_mm512_abs_ps(other.0), bound.0);
                Self(_mm512_maskz_mov_ps(mask, self.0))
            }
        }
        #[inline(always)]
        unsafe fn copy_sign(self, other: Self) -> Self {
            // SAFETY: see the impl.
            unsafe {
                let sign = _mm512_set1_ps(-0.0);
                let size = _mm512_andnot_ps(sign, self.0);
                Self(_mm512_or_ps(size, _mm512_and_ps(sign, other.0)))
            }
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            // SAFETY: see the impl.
            unsafe {
                let high = _mm512_extractf32x8_ps::<1>(self.0);
                Avx2(_mm256_add_ps(_mm512_castps512_ps256(self.0), high)).sum()
            }
        }
        #[inline(always)]
        unsafe fn sums(vectors: [Self; 4]) -> [f32; 4] {
            let [a, b, c, d] = vectors;
            // SAFETY: see the impl.
            unsafe {
                // Each step of `sum` for two vectors at once, then for four.
                let ab = _mm512_add_ps(
                    _mm512_shuffle_f32x4::<0b01_00_01_00>(a.0, b.0),
                    _mm512_shuffle_f32x4::<0b11_10_11_10>(a.0, b.0),
                );
                let cd = _mm512_add_ps(
                    _mm512_shuffle_f32x4::<0b01_00_01_00>(c.0, d.0),
                    _mm512_shuffle_f32x4::<0b11_10_11_10>(c.0, d.0),
                );
                let fours = _mm512_add_ps(
                    _mm512_shuffle_f32x4::<0b10_00_10_00>(ab, cd),
                    _mm512_shuffle_f32x4::<0b11_01_11_01>(ab, cd),
                );
                let twos = _mm512_add_ps(fours, _mm512_shuffle_ps::<0b11_10_11_10>(fours, fours));
                let ones = _mm512_add_ps(twos, _mm512_shuffle_ps::<0b01_01_01_01>(twos, twos));
                let first = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 8, 4, 0);
                let mut sums = [0.0; 4];
                let four = _mm512_castps512_ps128(_mm512_permutexvar_ps(first, ones));
                _mm_storeu_ps(sums.as_mut_ptr(), four);
                sums
            }
        }
        #[inline(always)]
        unsafe fn transpose<const G: usize>(rows: [Self; G]) -> [Self; G] {
            const EVEN: i32 = 0b10_00_10_00;
            const ODD: i32 = 0b11_01_11_01;
            // SAFETY: see the impl.
            unsafe {
                match G {
                    1 => rows,
                    2 => {
                        let (a, b) = (rows[0].0, rows[1].0);
                        let out = [
                            _mm512_shuffle_f32x4::<0b01_00_01_00>(a, b),
                            _mm512_shuffle_f32x4::<0b11_10_11_10>(a, b),
                        ];
                        std::array::from_fn(|i| Self(out[i]))
                    }
                    4 => {
                        let (a, b, c, d) = (rows[0].0, rows[1].0, rows[2].0, rows[3].0);
                        let (even, odd) = (
                            _mm512_shuffle_f32x4::<EVEN>(a, b),
                            _mm512_shuffle_f32x4::<ODD>(a, b),
                        );
                        let (even_2, odd_2) = (
                            _mm512_shuffle_f32x4::<EVEN>(c, d),
                            _mm512_shuffle_f32x4::<ODD>(c, d),
                        );
                        let out = [
                            _mm512_shuffle_f32x4::<EVEN>(even, even_2),
                            _mm512_shuffle_f32x4::<EVEN>(odd, odd_2),
                            _mm512_shuffle_f32x4::<ODD>(even, even_2),
                            _mm512_shuffle_f32x4::<ODD>(odd, odd_2),
                        ];
                        std::array::from_fn(|i| Self(out[i]))
                    }
                    _ => unreachable!("sixteen lanes are split into one, two or four parts"),
                }
            }
        }
        #[inline(always)]
        unsafe fn without_part<const G: usize>(self, part: usize) -> Self {
            let width = 16 / G;
            let mask = !((((1u32 << width) - 1) << (part * width)) as u16);
            // SAFETY: see the impl.
            Self(unsafe { _mm512_maskz_mov_ps(mask, self.0) })
        }
    }
}

/// The noise number of an element: its place counted from where a step's noise begins.
#[inline(always)]
pub fn element_noise(noise: u32, element: usize) -> u32 {
    noise.wrapping_add((element as u32).wrapping_mul(GOLDEN))
}
