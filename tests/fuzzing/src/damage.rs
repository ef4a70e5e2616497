//! Damages valid inputs as a script of bytes says, so that any engine that makes bytes makes damaged inputs.
//!
//! A script is a sample's number (two bytes) and edits of four bytes each: what, where (two bytes), with which value.

/// Bytes of an edit in a script.
const EDIT: usize = 4;

/// Numbers at which arithmetic and lengths go wrong.
const EDGES: [u64; 16] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_ffff_fffe,
    0xffff_ffff_ffff_ffff,
];

/// Replaces `out` by a sample with up to `edits` edits.
pub(crate) fn damage(samples: &[Vec<u8>], script: &[u8], edits: usize, out: &mut Vec<u8>) {
    out.clear();
    let (which, script) = script.split_at_checked(2).unwrap_or((&[0, 0], &[]));
    let Some(sample) = pick(samples, which) else { return };
    out.extend_from_slice(sample);
    for edit in script.chunks_exact(EDIT).take(edits) {
        apply(edit[0], usize::from(edit[1]) | usize::from(edit[2]) << 8, edit[3], samples, out);
    }
}

fn pick<'a>(samples: &'a [Vec<u8>], which: &[u8]) -> Option<&'a Vec<u8>> {
    let which = usize::from(which[0]) | usize::from(which[1]) << 8;
    samples.get(which.checked_rem(samples.len())?)
}

fn apply(what: u8, place: usize, value: u8, samples: &[Vec<u8>], out: &mut Vec<u8>) {
    let length = out.len();
    if length == 0 {
        out.push(value);
        return;
    }
    let at = place % length;
    let amount = usize::from(value % 32) + 1;
    match what % 16 {
        0..=2 => out[at] = value,
        3 | 4 => out[at] ^= 1 << (value % 8),
        5 => out[at] = out[at].wrapping_add(value),
        6 => out.insert(at, value),
        7 => drop(out.drain(at..length.min(at + amount))),
        8 => out.truncate(at),
        9 => out.push(value),
        // A part twice.
        10 => {
            let part = out[at..length.min(at + amount)].to_vec();
            out.splice(at..at, part);
        }
        // Two parts change places.
        11 => {
            let other = usize::from(value) % length;
            let amount = amount.min(at.abs_diff(other)).min(length - at.max(other));
            for i in 0..amount {
                out.swap(at + i, other + i);
            }
        }
        // The rest of another sample, from the same place on or from its own middle.
        12 => {
            if let Some(other) = pick(samples, &[value, 0]) {
                out.truncate(at);
                out.extend_from_slice(other.get(at..).unwrap_or(&other[other.len() / 2..]));
            }
        }
        13 => {
            let end = length.min(at + amount);
            out[at..end].fill(0);
        }
        // A number of one to eight bytes, in either order of bytes.
        _ => {
            let edge = EDGES[usize::from(value % 16)];
            let width = 1 << (value / 16 % 4);
            let (little, big) = (edge.to_le_bytes(), edge.to_be_bytes());
            let bytes = if value < 0x80 { &little[..width] } else { &big[8 - width..] };
            let end = length.min(at + width);
            out[at..end].copy_from_slice(&bytes[..end - at]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_script_can_be_carried_out_and_the_empty_one_changes_nothing() {
        let samples = [b"first".to_vec(), Vec::new(), b"a longer one, of some bytes".to_vec()];
        let mut out = vec![9];
        damage(&samples, &[2, 0], 7, &mut out);
        assert_eq!(out, samples[2]);
        for what in 0..=u8::MAX {
            for value in 0..=u8::MAX {
                let script = [value, 0, what, value, what, value, what, 255, 3, what];
                damage(&samples, &script, 7, &mut out);
                assert!(out.len() <= 3 * samples[2].len());
            }
        }
        damage(&[], &[1], 1, &mut out);
        assert!(out.is_empty());
    }
}
