//! Least squares over few columns, by the normal equations and Cholesky.
//!
//! Golub and Van Loan, *Matrix Computations*, 4th ed., sections 4.2 and 5.3. The
//! products are summed once; any subset of the columns is then solved for
//! without the data. Meant for some tens of well-scaled columns: the normal
//! equations square the condition number.
#![forbid(unsafe_code)]

/// Sums of products of columns x and of a target y.
#[derive(Clone, Debug)]
pub(super) struct Gram {
    columns: usize,
    /// Full square, symmetric.
    xx: Vec<f64>,
    xy: Vec<f64>,
    yy: f64,
    rows: f64,
}

impl Gram {
    pub fn new(columns: usize) -> Self {
        Self {
            columns,
            xx: vec![0.0; columns * columns],
            xy: vec![0.0; columns],
            yy: 0.0,
            rows: 0.0,
        }
    }

    /// Takes one observation.
    pub fn add(&mut self, x: &[f64], y: f64) {
        assert_eq!(x.len(), self.columns);
        for (i, xi) in x.iter().enumerate() {
            let row = &mut self.xx[i * self.columns..(i + 1) * self.columns];
            row.iter_mut().zip(x).for_each(|(sum, xj)| *sum += xi * xj);
            self.xy[i] += xi * y;
        }
        self.yy += y * y;
        self.rows += 1.0;
    }

    /// The same columns with another target.
    pub fn set_target(&mut self, xy: Vec<f64>, yy: f64) {
        assert_eq!(xy.len(), self.columns);
        (self.xy, self.yy) = (xy, yy);
    }

    pub fn rows(&self) -> f64 {
        self.rows
    }

    /// Coefficients of the chosen columns that minimise squared errors plus
    /// `penalty` · coefficient². `None` if the columns are dependent.
    pub fn solve(&self, chosen: &[usize], penalty: impl Fn(usize) -> f64) -> Option<Vec<f64>> {
        let n = chosen.len();
        let mut matrix = vec![0.0; n * n];
        for (i, a) in chosen.iter().enumerate() {
            for (j, b) in chosen[..=i].iter().enumerate() {
                matrix[i * n + j] = self.xx[a * self.columns + b];
            }
            matrix[i * n + i] += penalty(*a);
        }
        let target = chosen.iter().map(|column| self.xy[*column]).collect();
        cholesky(matrix, target)
    }

    /// Sum of the squared errors of those coefficients; rounding keeps it from
    /// being exact where it is small beside the target.
    pub fn squared_errors(&self, chosen: &[usize], coefficients: &[f64]) -> f64 {
        let mut sum = self.yy;
        for (a, x) in chosen.iter().zip(coefficients) {
            sum -= 2.0 * x * self.xy[*a];
            for (b, z) in chosen.iter().zip(coefficients) {
                sum += x * z * self.xx[a * self.columns + b];
            }
        }
        sum.max(1e-12 * self.yy)
    }
}

/// Solves a symmetric positive definite system given by its lower half.
fn cholesky(mut matrix: Vec<f64>, mut x: Vec<f64>) -> Option<Vec<f64>> {
    let n = x.len();
    for i in 0..n {
        let whole = matrix[i * n + i];
        for j in 0..=i {
            let dot: f64 = (0..j).map(|k| matrix[i * n + k] * matrix[j * n + k]).sum();
            let rest = matrix[i * n + j] - dot;
            matrix[i * n + j] = if i > j {
                rest / matrix[j * n + j]
            } else if rest > 1e-11 * whole {
                rest.sqrt()
            } else {
                // What is left is rounding: the column depends on those before.
                return None;
            };
        }
    }
    for i in 0..n {
        let dot: f64 = (0..i).map(|k| matrix[i * n + k] * x[k]).sum();
        x[i] = (x[i] - dot) / matrix[i * n + i];
    }
    for i in (0..n).rev() {
        let dot: f64 = (i + 1..n).map(|k| matrix[k * n + i] * x[k]).sum();
        x[i] = (x[i] - dot) / matrix[i * n + i];
    }
    x.iter().all(|value| value.is_finite()).then_some(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plane_is_found() {
        let mut gram = Gram::new(3);
        for i in 0..20_u32 {
            let (a, b) = (f64::from(i), f64::from(i * i % 7));
            gram.add(&[1.0, a, b], 2.0 - 3.0 * a + 0.5 * b);
        }
        let found = gram.solve(&[0, 1, 2], |_| 0.0).unwrap();
        for (found, truth) in found.iter().zip([2.0, -3.0, 0.5]) {
            assert!((found - truth).abs() < 1e-9);
        }
        assert!(gram.squared_errors(&[0, 1, 2], &found) < 1e-6);
        assert!(gram.squared_errors(&[0, 1], &gram.solve(&[0, 1], |_| 0.0).unwrap()) > 1.0);
    }

    #[test]
    fn a_penalty_shrinks_and_dependence_is_refused() {
        let mut gram = Gram::new(2);
        gram.add(&[1.0, 2.0], 4.0);
        gram.add(&[2.0, 4.0], 8.0);
        assert_eq!(gram.solve(&[0, 1], |_| 0.0), None);
        // Minimises (4 − x)² + (8 − 2x)² + 5x².
        assert!((gram.solve(&[0], |_| 5.0).unwrap()[0] - 2.0).abs() < 1e-12);
        assert_eq!(Gram::new(1).solve(&[0], |_| 0.0), None);
    }
}
