//! The fabric thread's PDU layer and Connect, driven by any bytes (see [`crate::fuzz`]).
//!
//! Nothing may panic, and what a connection holds stays bounded.

use nvme::Status;
use nvme::tcp::pdu::IcReq;
use zerocopy::IntoBytes;

use super::connect::Connect;
use super::link::{Link, OUTPUT_LIMIT};
use crate::target::nvmf::controller::Reply;

/// The longest PDU that an admin queue takes, and one read more.
const MOST_INPUT: usize = (128 + 255 + 8192 + 4) + 256;

/// Bytes of a host; the first says how they are cut, and whether its ICReq is good.
pub fn nvmf_link(bytes: &[u8]) {
    let Some((&first, bytes)) = bytes.split_first() else { return };
    let mut link = Link::new();
    if first & 1 == 1 {
        link.received(IcReq::new(first >> 1 & 0b11).as_bytes());
    }
    let mut held = 0;
    for part in bytes.chunks(usize::from(first >> 3) + 1) {
        link.received(part);
        held += part.len();
        assert!(held <= MOST_INPUT, "the input is bounded");
        loop {
            let command = match link.command() {
                Ok(Some(command)) => command,
                Ok(None) => break,
                Err(_) => return,
            };
            let cid = command.entry.cid.get();
            match Connect::parse(&command.entry, &command.data) {
                Ok(connect) => link.set_queue(connect.entries, connect.flow_control_off),
                Err(refusal) => assert!(!refusal.status.is_success()),
            }
            link.reply(&Reply { cid, status: Status::SUCCESS, result: 0, data: command.data });
            let waiting = link.output().len();
            assert!(waiting <= OUTPUT_LIMIT + 8192 + 64, "the output is bounded");
            link.sent(waiting.min(usize::from(first) * 64));
        }
        held = link.input_len();
        // A host reads what it is sent, sooner or later.
        if link.is_full() {
            link.sent(link.output().len());
        }
    }
}
