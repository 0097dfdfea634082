//! The deep half beside the wide one: what it is shown, and how both odds become one.
//!
//! It is kept for each client of a core ([`Tower::cross`]), gives each candidate its odds
//! ([`Tower::meet`]), and its window remembers them until their outcomes are known. Before a
//! model is trained, the wide odds alone count.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::candidates::MAX_CANDIDATES;
use super::clients::CLIENTS;
use super::features::{Common, Trigger};
use super::key::Key;
use super::part::Part;
use crate::deep::{self, CANDIDATES, Context, Model, State, Tag, View, Window};

/// What the wide and the deep log-odds count.
const WIDE: f32 = 0.7;
const DEEP: f32 = 1.0 - WIDE;
const _: () = assert!(MAX_CANDIDATES <= CANDIDATES);

/// What is remembered of one client.
#[derive(Clone, Copy, Debug)]
struct Followed {
    client: u64,
    state: State,
    crossed_ns: u64,
    /// The candidates of its newest crossing and their wide odds, likeliest first.
    foreseen: [(Key, f32); CANDIDATES],
}

impl Followed {
    const fn new(client: u64) -> Followed {
        let foreseen = [(Key::NONE, 0.0); CANDIDATES];
        Followed { client, state: State::NONE, crossed_ns: 0, foreseen }
    }
}

/// The deep half of one core.
pub(super) struct Tower {
    model: Arc<Model>,
    trained: bool,
    without: Option<Part>,
    pub window: Window,
    /// By the place of the client.
    followed: Vec<Followed>,
}

/// A crossing as its candidates meet it.
pub(super) struct Met {
    place: usize,
    context: Context,
    view: View,
    odds: [(Key, f32); CANDIDATES],
    len: usize,
}

impl Tower {
    pub fn new(model: Arc<Model>, trained: bool) -> Tower {
        let followed = vec![Followed::new(0); CLIENTS];
        Tower { model, trained, without: None, window: Window::new(), followed }
    }

    /// The same without one of its parts, for experiments.
    pub fn without(self, part: Part) -> Tower {
        Tower { without: Some(part), ..self }
    }

    pub const fn bytes() -> usize {
        Model::BYTES + Window::BYTES + CLIENTS * size_of::<Followed>()
    }

    /// Runs another model from now on; states stay, for the models follow each other.
    pub fn install(&mut self, model: Arc<Model>, trained: bool) {
        (self.model, self.trained) = (model, trained);
    }

    /// A client, whose place in the table this is, crosses.
    pub fn cross(
        &mut self,
        (place, client): (usize, u64),
        now: u64,
        trigger: &Trigger<'_>,
        common: &Common,
    ) -> Met {
        let followed = &mut self.followed[place];
        if followed.client != client {
            *followed = Followed::new(client);
        }
        let foreseen = followed.foreseen.iter().position(|(key, _)| *key == trigger.key);
        let foreseen = foreseen.map(|rank| (rank, followed.foreseen[rank].1));
        let gap_ns = trigger.access.time_ns.saturating_sub(followed.crossed_ns);
        followed.crossed_ns = trigger.access.time_ns;
        let context = Context { gap_ns, foreseen, ..trigger.context(common) };
        let rows = context.rows();
        if self.without == Some(Part::Memory) {
            followed.state = State::NONE;
        }
        self.window.open(client, now, rows, followed.state);
        self.model.step(&mut followed.state, &rows);
        let view = self.model.view(&followed.state);
        Met { place, context, view, odds: [(Key::NONE, 0.0); CANDIDATES], len: 0 }
    }

    /// The odds of a candidate by both halves, and where its outcome belongs.
    pub fn meet(
        &mut self,
        met: &mut Met,
        key: Key,
        seen: &deep::Candidate,
        wide: f32,
    ) -> (f32, Tag) {
        let rows = match self.without {
            Some(Part::Embeddings) => {
                deep::Candidate { distance: seen.distance, ..deep::Candidate::default() }
                    .rows(&Context::default())
            }
            _ => seen.rows(&met.context),
        };
        let tag = self.window.add(rows);
        let alone = self.without == Some(Part::Wide);
        let odds = match (self.trained, alone) {
            (false, false) => wide,
            (false, true) => f32::NEG_INFINITY,
            (true, false) => WIDE * wide + DEEP * self.model.odds(&met.view, &rows),
            (true, true) => self.model.odds(&met.view, &rows),
        };
        met.odds[met.len] = (key, if alone { odds } else { wide });
        met.len += 1;
        (odds, tag)
    }

    /// All candidates of the crossing have been met.
    pub fn close(&mut self, mut met: Met) {
        met.odds[..met.len].sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        self.followed[met.place].foreseen = met.odds;
    }
}
