//! What is to be sent over one connection.

use bytes::{Bytes, BytesMut};

/// A packet that is at least as long as this is shared by all connections that it is sent over; shorter ones are copied,
/// which costs less.
const SHARED: usize = 1024;

/// Most answers are no longer than this.
const USUAL: usize = 256;

/// Whole packets, in order.
#[derive(Debug, Default)]
pub(super) struct Out {
    /// What comes before `last`.
    pieces: Vec<Bytes>,
    pieces_bytes: usize,
    last: BytesMut,
}

impl Out {
    /// How many bytes there are.
    pub(super) fn len(&self) -> usize {
        self.pieces_bytes + self.last.len()
    }

    /// Where to append a packet that is for this connection alone.
    pub(super) fn end(&mut self) -> &mut BytesMut {
        if self.last.capacity() == 0 {
            self.last.reserve(USUAL);
        }
        &mut self.last
    }

    /// Appends a packet that others are sent too.
    pub(super) fn share(&mut self, packet: &Bytes) {
        if packet.len() < SHARED {
            self.last.extend_from_slice(packet);
            return;
        }
        if !self.last.is_empty() {
            let before = self.last.split().freeze();
            self.push(before);
        }
        self.push(packet.clone());
    }

    fn push(&mut self, piece: Bytes) {
        self.pieces_bytes += piece.len();
        self.pieces.push(piece);
    }

    /// Takes everything, and keeps no memory of what may have been much.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Bytes> {
        let Self { pieces, last, .. } = std::mem::take(self);
        pieces.into_iter().chain((!last.is_empty()).then(|| last.freeze()))
    }
}
