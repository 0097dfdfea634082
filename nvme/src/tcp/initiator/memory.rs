//! The caller's bytes.

/// What the caller calls a command: it finds its bytes and comes back with its completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag(pub u32);

/// Data of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// None.
    None,
    /// So many bytes come from the controller.
    In(u32),
    /// So many bytes go to the controller.
    Out(u32),
}

/// Where the bytes of commands lie.
///
/// They need not lie together: each call may return fewer bytes than asked for, but at
/// least one. From submission to completion the bytes of a command stay where they are,
/// and those of a write stay what they are: a digest may have been computed.
pub trait Memory {
    /// What command `tag` sends, from `offset` on.
    fn source(&self, tag: Tag, offset: usize, len: usize) -> &[u8];

    /// Where command `tag` receives, from `offset` on.
    fn target(&mut self, tag: Tag, offset: usize, len: usize) -> &mut [u8];
}
