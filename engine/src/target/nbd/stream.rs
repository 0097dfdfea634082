//! Reads whose data must leave as one run: simple replies, and `DF` chunks,
//! that span several windows.
//!
//! One at a time per connection. Its pieces are issued and sent in the order of
//! their offsets; from its header to its end, other replies are held back. A
//! failure before the header is an ordinary error. After it, a simple reply
//! can only end in closing the connection, while a `DF` chunk is filled up with
//! zeros and followed by an error chunk (protocol document, `CMD_READ`).

use super::reply::{Head, Reply};
use super::session::{PieceState, Session, body};
use crate::request::{Buf, Failure, Host};

/// The streamed read under way.
pub(super) struct Stream {
    pub(super) command: u16,
    /// The header is queued: nothing may come between it and the end.
    pub(super) open: bool,
}

impl Stream {
    pub(super) fn new(command: u16) -> Stream {
        Stream { command, open: false }
    }
}

impl Session {
    /// A piece of the stream has completed, in or ahead of its turn.
    pub(super) fn streamed(
        &mut self,
        index: u16,
        mut buf: Buf,
        result: Result<(), Failure>,
        host: &mut impl Host,
    ) {
        if result.is_err() {
            host.bytes_mut(&mut buf).fill(0);
        }
        self.pieces.get_mut(index).state = PieceState::Waiting(buf);
        self.advance_stream(host);
    }

    /// Sends what has its turn.
    pub(super) fn advance_stream(&mut self, host: &mut impl Host) {
        let Some(&Stream { command: number, open }) = self.stream.as_ref() else { return };
        if self.commands.get(number).failed.is_some() && !open {
            return self.refuse_stream(number, host);
        }
        if self.commands.get(number).failed.is_some() && !self.export.structured {
            return self.abort(host);
        }
        while let Some((index, buf)) = self.next_waiting() {
            let command = self.commands.get(number);
            let last = command.issued_all && self.stream_order.is_empty();
            let simple = !self.export.structured;
            let head = match self.stream.as_mut() {
                Some(stream) if !stream.open => {
                    stream.open = true;
                    if simple {
                        Head::simple(command.cookie, 0)
                    } else {
                        Head::data(command.cookie, command.offset, command.length, false)
                    }
                }
                _ => Head::empty(),
            };
            let piece = self.pieces.get(index);
            let body = Some(body(buf, piece.offset, piece.length));
            let ends = (last && simple).then_some(number);
            self.output.push(Reply { head, body, piece: Some(index), command: ends });
            if last {
                if !simple {
                    self.end_chunk(number);
                }
                self.stream = None;
                self.output.release_held();
                return;
            }
        }
    }

    /// The next piece in order, if it has completed.
    fn next_waiting(&mut self) -> Option<(u16, Buf)> {
        let &index = self.stream_order.front()?;
        let piece = self.pieces.get_mut(index);
        match std::mem::replace(&mut piece.state, PieceState::Ours) {
            PieceState::Waiting(buf) => {
                self.stream_order.pop();
                Some((index, buf))
            }
            state => {
                piece.state = state;
                None
            }
        }
    }

    fn end_chunk(&mut self, number: u16) {
        let command = self.commands.get(number);
        let head = match command.failed {
            Some(failed) => Head::error_offset(command.cookie, failed, true),
            None => Head::none(command.cookie),
        };
        self.output.push(Reply { head, body: None, piece: None, command: Some(number) });
    }

    /// Nothing was sent yet: waits for the pieces and answers with the error.
    fn refuse_stream(&mut self, number: u16, host: &mut impl Host) {
        while let Some((index, buf)) = self.next_waiting() {
            self.drop_piece(index, Some(buf), host);
        }
        if self.commands.get(number).ended() && self.stream_order.is_empty() {
            self.stream = None;
            self.settle(number);
        }
    }
}
