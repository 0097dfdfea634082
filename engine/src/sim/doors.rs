//! What happens at the doors of a world: hosts and cores take their turns.

use super::broken::Broken;
use super::core::core_id;
use super::door::Door;
use super::payload::Payload;
use super::plan::Fault;
use super::playground::Want;
use super::regime::Regime;
use super::wire::DoorHost;
use super::world::World;
use crate::device::sim::Rng;
use crate::request::Op;
use crate::volume::Volumes;

impl World {
    /// About half of the clients speak NVMe/TCP, in worlds that dwell on nothing.
    pub(super) fn connect(&mut self, volumes: &Volumes) {
        self.doors.clear();
        // Other worlds dwell on situations that a stream between client and core would spoil.
        if self.plan.regime != Regime::Mixed {
            return;
        }
        for client in 0..u64::from(self.plan.clients) {
            if self.client_rng.one_in(2) {
                let (number, core) = (self.doors.len(), self.core_of_client(client));
                let door = Door::new(number, client, core, volumes, &mut self.client_rng);
                self.doors.push(door);
            }
        }
    }

    /// A client that speaks NVMe/TCP wants something.
    pub(super) fn send_through(&mut self, number: usize, mut want: Want) -> bool {
        // Dataset Management has no FUA.
        want.fua &= want.op != Op::Discard;
        let door = &mut self.doors[number];
        if !door.takes(&want) {
            return false;
        }
        let core = door.core;
        let sent = self.clients.send_out(want, core_id(core), &mut self.oracle);
        let Some((tag, bytes)) = sent else { return false };
        door.send(&want, tag, bytes, &mut self.client_rng);
        self.tell_request(tag, &want, core);
        true
    }

    /// A host that speaks NVMe/TCP does something.
    pub(super) fn host_turn(&mut self) -> Result<bool, Broken> {
        let doors = self.doors.len();
        let first = self.rng.index(doors);
        let mut order = (0..doors).map(|at| (first + at) % doors);
        let Some(number) = order.find(|at| self.doors[*at].host_has_work()) else {
            return Ok(false);
        };
        let door = &mut self.doors[number];
        if door.host_turn(&mut self.rng) {
            self.cores[door.core].signal();
        }
        while let Some((tag, result, bytes)) = self.doors[number].ended() {
            let (oracle, shared) = (&mut self.oracle, &mut self.shared);
            let want = self.clients.end(tag, result, Payload::Host(bytes), oracle, shared)?;
            self.tell_end(tag, &want, result);
        }
        Ok(true)
    }

    /// Something at the target's side of a door, on its core.
    pub(super) fn with_door(
        &mut self,
        number: usize,
        act: impl FnOnce(&mut Door, &mut DoorHost<'_, '_>, &mut Rng),
    ) {
        let mut doors = std::mem::take(&mut self.doors);
        let mut rng = self.rng.fork();
        let stage = rng.one_in(3) && self.exists(Fault::Tiers);
        let door = &mut doors[number];
        self.with_core(door.core, |core, sink| {
            act(door, &mut DoorHost { core, sink, stage }, &mut rng);
        });
        self.doors = doors;
    }

    /// Looks at one of the connections that end here.
    pub(super) fn look_at_doors(&mut self, core: usize) -> bool {
        let doors = self.doors.len();
        let first = self.rng.index(doors);
        let mut order = (0..doors).map(|at| (first + at) % doors);
        let busy = |at: &usize| self.doors[*at].core == core && self.doors[*at].target_has_work();
        let Some(number) = order.find(busy) else { return false };
        self.with_door(number, |door, host, rng| door.target_turn(host, rng));
        true
    }
}
