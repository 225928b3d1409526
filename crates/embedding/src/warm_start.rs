//! Vectors that were learned elsewhere, made to fit a table of another dim.

/// Second moments `Σ x xᵀ` of vectors, to find their principal components by.
///
/// They are of the vectors as they are, not of their differences from the mean: what is to survive
/// is the products of vectors, and those are not the products of differences.
///
/// ```
/// use crossfield_embedding::{Moments, Principal};
///
/// // All vectors lie near one line.
/// let mut moments = Moments::new(2);
/// moments.add(&[3.0, 4.0]);
/// moments.add(&[-6.0, -8.0]);
/// moments.add(&[0.4, -0.3]);
/// let principal = Principal::of(&[&moments], 1);
/// assert!(moments.kept(&principal) > 0.99);
/// let mut short = [0.0];
/// principal.rotate(&[6.0, 8.0], &mut short);
/// assert!((short[0] - 10.0).abs() < 1e-3);
/// ```
#[derive(Clone, Debug)]
pub struct Moments {
    dim: usize,
    sums: Vec<f64>,
}

/// A rotation into principal components, of which the first few are kept.
#[derive(Clone, Debug)]
pub struct Principal {
    dim: usize,
    /// The components, one after the other, the largest first: `[kept, dim]`.
    components: Vec<f64>,
}

impl Moments {
    /// Those of no vector of `dim` numbers.
    pub fn new(dim: usize) -> Self {
        Self {
            dim,
            sums: vec![0.0; dim * dim],
        }
    }

    /// Adds a vector.
    ///
    /// # Shapes
    /// - vector: `[dim]`
    pub fn add(&mut self, vector: &[f32]) {
        for (sums, &a) in self.sums.chunks_exact_mut(self.dim).zip(vector) {
            for (sum, &b) in sums.iter_mut().zip(vector) {
                *sum += f64::from(a) * f64::from(b);
            }
        }
    }

    /// Sum of squared lengths.
    fn trace(&self) -> f64 {
        self.sums.iter().step_by(self.dim + 1).sum()
    }

    /// Share of the squared lengths that is left after the rotation: 1 where nothing is lost.
    pub fn kept(&self, principal: &Principal) -> f64 {
        let of = |component: &[f64]| {
            let products = self.sums.chunks_exact(self.dim);
            let products = products.map(|sums| dot(sums, component));
            products.zip(component).map(|(p, c)| p * c).sum::<f64>()
        };
        let trace = self.trace();
        if trace == 0.0 {
            return 1.0;
        }
        let components = principal.components.chunks_exact(self.dim);
        components.map(of).sum::<f64>() / trace
    }
}

impl Principal {
    /// The first `kept` principal components of all vectors together: of the moments' sum, each
    /// scaled to a trace of 1, so that users and items count alike however many and long they are.
    ///
    /// One rotation `R` for both keeps the products of users and items: `(R p)·(R q) = p·q` but for
    /// the components that are left out.
    ///
    /// # Panics
    /// If the moments are of different dims, or `kept` is larger.
    pub fn of(moments: &[&Moments], kept: usize) -> Self {
        let dim = moments.first().map_or(0, |moments| moments.dim);
        assert!(kept <= dim, "{kept} components of {dim}");
        let mut sum = vec![0.0; dim * dim];
        for moments in moments {
            assert_eq!(moments.dim, dim, "moments of one dim");
            let trace = moments.trace();
            if trace > 0.0 {
                let scaled = moments.sums.iter().map(|value| value / trace);
                sum.iter_mut()
                    .zip(scaled)
                    .for_each(|(sum, value)| *sum += value);
            }
        }
        let (values, vectors) = eigen(sum, dim);
        let mut order: Vec<usize> = (0..dim).collect();
        order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
        let mut components = Vec::with_capacity(kept * dim);
        for &at in &order[..kept] {
            let vector = &vectors[at * dim..][..dim];
            // An eigenvector has no sign of its own.
            let largest = vector
                .iter()
                .copied()
                .max_by(|a, b| a.abs().total_cmp(&b.abs()));
            let sign = largest.unwrap_or(1.0).signum();
            components.extend(vector.iter().map(|value| sign * value));
        }
        Self { dim, components }
    }

    /// The kept components of a vector.
    ///
    /// # Shapes
    /// - vector: `[dim]`
    /// - into: `[kept]`
    pub fn rotate(&self, vector: &[f32], into: &mut [f32]) {
        for (into, component) in into.iter_mut().zip(self.components.chunks_exact(self.dim)) {
            let products = component.iter().zip(vector).map(|(c, &x)| c * f64::from(x));
            *into = products.sum::<f64>() as f32;
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Eigenvalues and eigenvectors, in rows, of a symmetric matrix `[dim, dim]`, by Jacobi's rotations:
/// each zeroes one pair of elements off the diagonal, round after round until all are.
///
/// # Source
/// Golub, Van Loan, Matrix Computations, section 8.5.
fn eigen(mut a: Vec<f64>, dim: usize) -> (Vec<f64>, Vec<f64>) {
    let mut vectors = vec![0.0; dim * dim];
    vectors
        .iter_mut()
        .step_by(dim + 1)
        .for_each(|one| *one = 1.0);
    let size: f64 = a.iter().map(|value| value * value).sum();
    for _round in 0..60 {
        let off = (0..dim).flat_map(|p| (0..p).map(move |q| (p, q)));
        let off: f64 = off.map(|(p, q)| a[p * dim + q].powi(2)).sum();
        if off <= 1e-28 * size {
            break;
        }
        for q in 1..dim {
            for p in 0..q {
                let apq = a[p * dim + q];
                if apq == 0.0 {
                    continue;
                }
                let theta = (a[q * dim + q] - a[p * dim + p]) / (2.0 * apq);
                // The smaller of the two angles.
                let tangent = 1.0f64.copysign(theta) / (theta.abs() + theta.hypot(1.0));
                let cosine = 1.0 / tangent.hypot(1.0);
                let sine = tangent * cosine;
                let turn = |x: f64, y: f64| (cosine * x - sine * y, sine * x + cosine * y);
                for k in 0..dim {
                    let (kp, kq) = (k * dim + p, k * dim + q);
                    (a[kp], a[kq]) = turn(a[kp], a[kq]);
                }
                for k in 0..dim {
                    let (pk, qk) = (p * dim + k, q * dim + k);
                    (a[pk], a[qk]) = turn(a[pk], a[qk]);
                    (vectors[pk], vectors[qk]) = turn(vectors[pk], vectors[qk]);
                }
            }
        }
    }
    (a.into_iter().step_by(dim + 1).collect(), vectors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;
    use crossfield_core::rng::{Purpose, rng};
    use rand::RngExt;

    fn vectors(count: u64, dim: usize, scale: f32) -> Vec<Vec<f32>> {
        let of = |nth| {
            let mut rng = rng(1, Purpose::Synth, nth, scale.to_bits().into());
            let numbers = (0..dim).map(|_| scale * (rng.random::<f32>() - 0.3));
            numbers.collect::<Vec<f32>>()
        };
        (0..count).map(of).collect()
    }

    #[test]
    fn eigenvalues_and_vectors_of_a_small_matrix() {
        // [[2, 1], [1, 2]] stretches (1, 1) by 3 and (1, -1) by 1.
        let (values, vectors) = eigen(vec![2.0, 1.0, 1.0, 2.0], 2);
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        assert_relative_eq!(sorted[0], 1.0, epsilon = 1e-12);
        assert_relative_eq!(sorted[1], 3.0, epsilon = 1e-12);
        for (value, vector) in values.iter().zip(vectors.chunks_exact(2)) {
            let stretched = [2.0 * vector[0] + vector[1], vector[0] + 2.0 * vector[1]];
            assert_relative_eq!(stretched[0], value * vector[0], epsilon = 1e-12);
            assert_relative_eq!(stretched[1], value * vector[1], epsilon = 1e-12);
        }
    }

    #[test]
    fn eigenvectors_are_orthonormal_and_give_the_matrix_back() {
        let dim = 12;
        let mut moments = Moments::new(dim);
        for vector in vectors(40, dim, 1.0) {
            moments.add(&vector);
        }
        let (values, vectors) = eigen(moments.sums.clone(), dim);
        let row = |at: usize| &vectors[at * dim..][..dim];
        for a in 0..dim {
            for b in 0..dim {
                let expected = if a == b { 1.0 } else { 0.0 };
                assert_relative_eq!(dot(row(a), row(b)), expected, epsilon = 1e-12);
                let back: f64 = (0..dim).map(|k| values[k] * row(k)[a] * row(k)[b]).sum();
                assert_relative_eq!(back, moments.sums[a * dim + b], epsilon = 1e-10);
            }
        }
    }

    #[test]
    fn products_survive_where_vectors_lie_in_fewer_dimensions() {
        // Two numbers, turned into five: two components hold everything.
        let spread = |v: &[f32]| [v[0], v[1], v[0] - v[1], 2.0 * v[1], 0.5 * v[0]];
        let users: Vec<[f32; 5]> = vectors(9, 2, 1.0).iter().map(|v| spread(v)).collect();
        let items: Vec<[f32; 5]> = vectors(7, 2, 30.0).iter().map(|v| spread(v)).collect();
        let (mut of_users, mut of_items) = (Moments::new(5), Moments::new(5));
        users.iter().for_each(|user| of_users.add(user));
        items.iter().for_each(|item| of_items.add(item));
        let principal = Principal::of(&[&of_users, &of_items], 2);
        assert_relative_eq!(of_users.kept(&principal), 1.0, epsilon = 1e-9);
        assert!(of_items.kept(&Principal::of(&[&of_users, &of_items], 1)) < 0.999);
        for user in &users {
            for item in &items {
                let [mut p, mut q] = [[0f32; 2]; 2];
                principal.rotate(user, &mut p);
                principal.rotate(item, &mut q);
                let product: f32 = user.iter().zip(item).map(|(a, b)| a * b).sum();
                assert_relative_eq!(p[0] * q[0] + p[1] * q[1], product, max_relative = 1e-4);
            }
        }
    }

    #[test]
    fn vectors_of_zeros_have_components_too() {
        let moments = Moments::new(3);
        let principal = Principal::of(&[&moments], 2);
        assert_eq!(moments.kept(&principal), 1.0);
        let mut short = [1.0; 2];
        principal.rotate(&[0.0; 3], &mut short);
        assert_eq!(short, [0.0; 2]);
    }
}
