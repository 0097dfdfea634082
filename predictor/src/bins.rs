//! Numbers as bins, and the places of groups of bins in one table.
#![forbid(unsafe_code)]

/// 0 for 0, else one more than the floor of the binary logarithm.
pub(crate) fn log2(x: u64) -> usize {
    (64 - x.leading_zeros()) as usize
}

/// Where each group begins in a table of groups of these sizes.
pub(crate) const fn offsets<const N: usize>(sizes: &[usize; N]) -> [usize; N] {
    let mut offsets = [0; N];
    let mut group = 1;
    while group < N {
        offsets[group] = offsets[group - 1] + sizes[group - 1];
        group += 1;
    }
    offsets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_count_bits() {
        assert_eq!([0, 1, 2, 3, 4].map(log2), [0, 1, 2, 2, 3]);
        assert_eq!(offsets(&[3, 1, 5]), [0, 3, 4]);
    }
}
