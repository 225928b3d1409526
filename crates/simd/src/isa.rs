//! The instruction set that kernels run on, chosen when a run starts.

#[cfg(target_arch = "x86_64")]
use crate::{Avx2, Avx512};
use crate::{Error, Lanes, Portable};

/// An instruction set that this machine has.
///
/// ```
/// use crossfield_simd::Isa;
///
/// let isa = Isa::detect()?;
/// assert!(Isa::available().contains(&isa));
/// assert!(Isa::available().contains(&Isa::PORTABLE));
/// # Ok::<(), crossfield_simd::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isa(Set);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Set {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// Work that is compiled for each instruction set.
pub trait Kernel {
    /// What it gives.
    type Output;

    /// Does the work. Implementations and all that they call are `#[inline(always)]`, so that they
    /// become part of the function that enables the instruction set.
    ///
    /// # Safety
    /// The machine has the instruction set of `L`.
    unsafe fn run<L: Lanes>(self) -> Self::Output;
}

impl Isa {
    /// Plain code, for any machine.
    pub const PORTABLE: Isa = Isa(Set::Portable);

    /// The best of this machine, or the one that the environment variable `CROSSFIELD_ISA` names.
    ///
    /// # Errors
    /// [`Error::Isa`] if the variable names none that this machine has.
    pub fn detect() -> Result<Self, Error> {
        let available = Self::available();
        match std::env::var("CROSSFIELD_ISA") {
            Err(_) => Ok(available[0]),
            Ok(asked) => available
                .iter()
                .copied()
                .find(|isa| isa.name() == asked)
                .ok_or_else(|| Error::Isa {
                    asked,
                    available: available
                        .iter()
                        .map(|isa| isa.name())
                        .collect::<Vec<_>>()
                        .join(", "),
                }),
        }
    }

    /// All that this machine has, the best first.
    pub fn available() -> Vec<Self> {
        let mut sets = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            if avx2 && avx512 {
                sets.push(Self(Set::Avx512));
            }
            if avx2 {
                sets.push(Self(Set::Avx2));
            }
        }
        sets.push(Self::PORTABLE);
        sets
    }

    /// Its name: `avx512`, `avx2` or `portable`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Set::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => "avx512",
        }
    }

    /// Runs a kernel on the widest vectors.
    #[inline]
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            // SAFETY: plain code.
            Set::Portable => unsafe { kernel.run::<Portable<16>>() },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Isa` of this set is made only where the machine has it.
            Set::Avx2 => unsafe { avx2(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Set::Avx512 => unsafe { avx512(kernel) },
        }
    }

    /// Runs a kernel on the widest vectors that rows of `width` floats are made of.
    #[inline]
    pub fn run_width<K: Kernel>(self, width: usize, kernel: K) -> K::Output {
        if width.is_multiple_of(16) {
            self.run(kernel)
        } else if width.is_multiple_of(8) {
            self.run_eight(kernel)
        } else {
            // One or two floats, which are not padded to vectors.
            // SAFETY: plain code.
            unsafe { kernel.run::<Portable<1>>() }
        }
    }

    /// Runs a kernel on vectors of eight, for rows that fill no wider ones.
    #[inline]
    pub fn run_eight<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            // SAFETY: plain code.
            Set::Portable => unsafe { kernel.run::<Portable<8>>() },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `available` gives AVX-512 only beside AVX2.
            Set::Avx2 | Set::Avx512 => unsafe { avx2(kernel) },
        }
    }
}

/// # Safety
/// The machine has AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller vouches for the set.
    unsafe { kernel.run::<Avx2>() }
}

/// # Safety
/// The machine has AVX-512 F, BW, DQ and VL, AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn avx512<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller vouches for the set.
    unsafe { kernel.run::<Avx512>() }
}

/// Asks for the cache lines of `bytes` bytes from `at` on.
///
/// A hint that is never wrong: an address that is not mapped is ignored.
#[inline(always)]
pub fn prefetch(at: *const u8, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..bytes).step_by(64) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: SSE is part of x86-64, and a prefetch cannot fault.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.wrapping_add(line).cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (at, bytes);
}
