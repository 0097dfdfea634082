//! Parts of the ranker that can be left out, to see what each brings.
#![forbid(unsafe_code)]

/// What is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The whole tower.
    Tower,
    /// What the tower's LSTM remembers: it sees each crossing by itself.
    Memory,
    /// What the tower sees of a candidate, but for its distance.
    Embeddings,
    /// What is known of fragments and pairs by their names: past success rates, for tower and
    /// wide half.
    Ids,
    /// The wide half: the tower chooses alone, and before it is trained nobody does.
    Wide,
}

impl Part {
    /// All of them.
    pub const ALL: [Part; 5] = [Part::Tower, Part::Memory, Part::Embeddings, Part::Ids, Part::Wide];
}
