//! Sums of rows of a table, as an operation of candle.
//!
//! The same as selecting the rows and adding them up, but without a copy of each row and of
//! its gradient: these would be most of a step's time.
#![forbid(unsafe_code)]

use candle_core::{CpuStorage, CustomOp1, Error, Layout, Result, Shape, Tensor};

/// For each item, the sum of `groups` rows; `rows` has those of one item after another.
pub(super) fn sum_rows(table: &Tensor, rows: &[u32], groups: usize) -> Result<Tensor> {
    table.apply_op1(SumRows { rows: rows.to_vec(), groups })
}

struct SumRows {
    rows: Vec<u32>,
    groups: usize,
}

fn bounds(row: u32, width: usize) -> std::ops::Range<usize> {
    let start = row as usize * width;
    start..start + width
}

fn add(sum: &mut [f32], row: &[f32]) {
    sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
}

impl CustomOp1 for SumRows {
    fn name(&self) -> &'static str {
        "sum-rows"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, width) = layout.shape().dims2()?;
        let whole = layout.contiguous_offsets();
        let (CpuStorage::F32(values), Some((start, end))) = (storage, whole) else {
            return Err(Error::Msg("a table is contiguous and of 32-bit numbers".into()));
        };
        let table = &values[start..end];
        let items = self.rows.len() / self.groups;
        let mut sums = vec![0.0; items * width];
        for (sum, rows) in sums.chunks_exact_mut(width).zip(self.rows.chunks_exact(self.groups)) {
            rows.iter().for_each(|row| add(sum, &table[bounds(*row, width)]));
        }
        Ok((CpuStorage::F32(sums), (items, width).into()))
    }

    /// Each row of the table gets the gradients of all sums that it is in.
    fn bwd(&self, table: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (count, width) = table.dims2()?;
        let gradient = gradient.flatten_all()?.to_vec1::<f32>()?;
        let mut sums = vec![0.0; count * width];
        for (item, rows) in gradient.chunks_exact(width).zip(self.rows.chunks_exact(self.groups)) {
            rows.iter().for_each(|row| add(&mut sums[bounds(*row, width)], item));
        }
        Tensor::from_vec(sums, (count, width), table.device()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::random::Random;

    #[test]
    fn sums_and_their_gradients_are_those_of_selected_rows() {
        let mut random = Random::new(4);
        let values: Vec<f32> = (0..7 * 5).map(|_| random.symmetric(1.0)).collect();
        let table = Var::from_slice(&values, (7, 5), &Device::Cpu).unwrap();
        // The last row twice for one item.
        let rows = [0, 3, 6, 6, 2, 3, 1, 1];
        let selected = Tensor::new(&rows, &Device::Cpu).unwrap();
        let selected = table.index_select(&selected, 0).unwrap();
        let expected = selected.reshape((4, 2, 5)).unwrap().sum(1).unwrap();
        let sums = sum_rows(&table, &rows, 2).unwrap();
        let gradient = |sums: &Tensor| {
            let loss = sums.sqr().unwrap().sum_all().unwrap();
            let gradients = loss.backward().unwrap();
            gradients.get(&table).unwrap().to_vec2::<f32>().unwrap()
        };
        let near = |a: Vec<Vec<f32>>, b: Vec<Vec<f32>>| {
            let pairs = a.concat().into_iter().zip(b.concat());
            pairs.fold(0.0_f32, |most, (a, b)| most.max((a - b).abs()))
        };
        assert!(near(sums.to_vec2().unwrap(), expected.to_vec2().unwrap()) < 1e-6);
        assert!(near(gradient(&sums), gradient(&expected)) < 1e-5);
        assert!(gradient(&sums)[4].iter().all(|x| *x == 0.0), "in no sum");
    }
}
