//! Planted bugs: mistakes that the simulator must catch.
//!
//! At one place each the engine asks [`planted`] whether to be wrong. Without
//! the feature `planted` the answer is a constant `false`, and nothing of this
//! is left in the program; with it, a thread may enable one bug at a time. A
//! build that aborts on panics, as every release is, refuses the feature.
//!
//! The module depends on nothing else of the crate: a test compiles it alone,
//! to see that refusal.

#[cfg(all(feature = "planted", panic = "abort"))]
compile_error!("planted bugs are for tests: a release must not be built with them");

macro_rules! bugs {
    ($($(#[doc = $what:literal])+ $bug:ident,)*) => {
        /// A mistake at one place of the engine.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bug { $($(#[doc = $what])+ $bug,)* }

        impl Bug {
            /// All of them.
            pub const ALL: &[Bug] = &[$(Bug::$bug),*];

            /// What is wrong.
            pub fn what(self) -> &'static str {
                match self { $(Bug::$bug => concat!($($what),+).trim_ascii_start()),* }
            }
        }
    };
}

bugs! {
    /// A commit writes its group without flushing the devices that hold its data.
    SkippedFlush,
    /// A flush covers only what its own connection has written since its last one.
    FlushOfOneConnection,
    /// A flush asks the first core only.
    FlushOfOneCore,
    /// A flush waits for the first slice that has something to commit, and no other.
    FlushOfOneSlice,
    /// Records of changes made during a commit are dropped.
    DroppedRecord,
    /// A group, with its checksums, is written beside the flush of its data, not behind it.
    CrcBeforeData,
    /// A group that was written without FUA is taken for durable before its flush.
    GroupNotFlushed,
    /// Every core flushes a device by itself.
    FlushByEachCore,
    /// A commit joins a flush that began before its data was written.
    FlushJoinedLate,
    /// A write's entries and record change when it is issued, not when it has ended.
    EntryBeforeData,
    /// A checkpoint's root is written before its pages are flushed.
    CheckpointBeforeData,
    /// A checkpoint's root is written before the groups that its pages reflect.
    CheckpointBeforeGroups,
    /// The journal before a checkpoint is free when the checkpoint begins.
    JournalFreedEarly,
    /// Block maps are believed whatever their page's checksum and identity.
    IgnoredCrcOfMap,
    /// A fragment leaves memory although its map has changed since a checkpoint wrote it.
    MapLeftUnsaved,
    /// A replaced map page is free before the checkpoint that replaces it is published.
    MapPageFreedEarly,
    /// Replayed records of blocks are forgotten when the map that they change is read.
    ReplayForgotten,
    /// The old checkpoint's extents are free before the new root is durable.
    ExtentsFreedEarly,
    /// Reads believe blocks whatever their checksum.
    IgnoredCrc,
    /// Partly written blocks are completed from old contents whatever their checksum.
    IgnoredCrcOfMerge,
    /// Spills copy blocks whatever their checksum.
    IgnoredCrcOfSpill,
    /// Stages hold blocks whatever their checksum.
    IgnoredCrcOfStage,
    /// A hole in a fragment that has a fast slot reads as what the slot held before.
    StaleSlot,
    /// A replaced block's place is free at once, though a durable record names it.
    PlaceFreedEarly,
    /// A dropped fragment's slots are free at once, though a durable record names them.
    SlotFreedEarly,
    /// Places and slots are free though reads of them are under way.
    SlotReusedUnderRead,
    /// A discard leaves no record.
    DiscardNotJournaled,
    /// A partly written block is completed with zeros instead of its old contents.
    LostNeighbour,
    /// Writes of parts of one block are completed side by side.
    RacingNeighbours,
    /// An NVMe/TCP command's FUA does not reach the engine.
    FuaDropped,
    /// A write that depends on a comparison takes place whatever was found.
    ComparisonIgnored,
    /// A spilled fragment's fast slots are free before the spill is durable.
    SpillFreesSlotEarly,
    /// A spill takes the authority though the fragment was written meanwhile.
    WriteRacingSpillLost,
    /// A promotion's copy becomes current though the block was written meanwhile.
    WriteRacingPromotionLost,
    /// A stage keeps serving a block that has been written.
    StageNotForgotten,
    /// Every superblock is written over the one before.
    SuperblockInPlace,
    /// Recovery replays the pending log though the journal holds its group already.
    RecoveryAppliedTwice,
    /// The next owner of a slice does not complete what its last owner had pending.
    HandoverWithoutDrain,
    /// A volume's end is trimmed before requests under its old size have ended.
    TrimWithoutDrain,
    /// Recovery believes a journal block that does not follow the one before.
    BrokenChain,
    /// Recovery applies the part of a group that it finds.
    TornGroup,
    /// Recovery leaves what it did not believe behind the journal's end, to be believed later.
    TailLeft,
    /// Who sends a message to a core that sleeps does not ring.
    LostWakeUp,
    /// A core that another asks for a chunk says that it has none to give.
    HoardedSpace,
    /// What waits for a commit is not tried again when it ends.
    LostKick,
}

/// True if the engine is to be wrong in this way, on this thread.
#[cfg(not(feature = "planted"))]
#[inline]
pub const fn planted(_: Bug) -> bool {
    false
}

#[cfg(feature = "planted")]
thread_local! {
    static ENABLED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// True if the engine is to be wrong in this way, on this thread.
#[cfg(feature = "planted")]
#[inline]
pub fn planted(bug: Bug) -> bool {
    ENABLED.get() == Some(bug)
}

/// Makes the engine wrong on this thread, in one way or none.
#[cfg(feature = "planted")]
pub fn enable(bug: Option<Bug>) {
    ENABLED.set(bug);
}
