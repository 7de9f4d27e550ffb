//! Atoms (boxes) of MPEG-4 files (ISO/IEC 14496-12): a length, a kind, a payload that may be atoms again.

/// Why a file cannot be cut; for the log.
pub type Fault = &'static str;

/// Four letters.
pub type Kind = [u8; 4];

/// An atom's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// What it is.
    pub kind: Kind,
    /// Bytes of the head: 8, or 16 with a long length.
    pub head_length: u64,
    /// Bytes of head and payload.
    pub length: u64,
}

/// Bytes that a head may have.
pub const LONGEST_HEAD: usize = 16;

impl Head {
    /// Reads a head from the front of `bytes`, of which `available` are in the file; `None` at the end.
    pub fn read(bytes: &[u8], available: u64) -> Result<Option<Head>, Fault> {
        if available < 8 {
            return Ok(None);
        }
        let short = be32(bytes, 0)?;
        let kind = bytes.get(4..8).and_then(|kind| kind.try_into().ok()).ok_or(CUT)?;
        let (head_length, length) = match short {
            // To the end of the file.
            0 => (8, available),
            1 => (16, be64(bytes, 8)?),
            length => (8, u64::from(length)),
        };
        if length < head_length {
            return Err("mp4 atom is too small");
        }
        if length > available {
            return Err("mp4 atom is too large");
        }
        Ok(Some(Head { kind, head_length, length }))
    }
}

const CUT: Fault = "mp4 atom is cut short";

/// A number of four bytes at `at`.
pub fn be32(bytes: &[u8], at: usize) -> Result<u32, Fault> {
    let four = at.checked_add(4).and_then(|end| bytes.get(at..end)).ok_or(CUT)?;
    Ok(u32::from_be_bytes(four.try_into().map_err(|_| CUT)?))
}

/// A number of eight bytes at `at`.
pub fn be64(bytes: &[u8], at: usize) -> Result<u64, Fault> {
    Ok(u64::from(be32(bytes, at)?) << 32 | u64::from(be32(bytes, at.checked_add(4).ok_or(CUT)?)?))
}

/// Atoms one behind the other.
pub struct Atoms<'a> {
    rest: &'a [u8],
}

/// The atoms that `payload` is made of, each with its payload.
pub fn atoms(payload: &[u8]) -> Atoms<'_> {
    Atoms { rest: payload }
}

impl<'a> Iterator for Atoms<'a> {
    type Item = Result<(Kind, &'a [u8]), Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = std::mem::take(&mut self.rest);
        match Head::read(rest, rest.len() as u64) {
            Ok(None) => None,
            Ok(Some(head)) => {
                let (atom, behind) = rest.split_at(head.length as usize);
                self.rest = behind;
                Some(Ok((head.kind, &atom[head.head_length as usize..])))
            }
            Err(fault) => Some(Err(fault)),
        }
    }
}

/// The payload of the first atom of this kind.
pub fn find<'a>(payload: &'a [u8], kind: &Kind) -> Result<Option<&'a [u8]>, Fault> {
    for atom in atoms(payload) {
        let (found, payload) = atom?;
        if found == *kind {
            return Ok(Some(payload));
        }
    }
    Ok(None)
}

/// Appends an atom whose payload `write` appends. What is written is shorter than 4 GiB: it is made of what was read.
pub fn write_atom(out: &mut Vec<u8>, kind: &Kind, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(kind);
    write(out);
    let length = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// A table of entries of `size` bytes, whose number stands at `at` and which begins behind it.
pub fn table(payload: &[u8], at: usize, size: usize) -> Result<&[u8], Fault> {
    let count = be32(payload, at)? as usize;
    let entries = &payload[at + 4..];
    let length = count.checked_mul(size).ok_or(CUT)?;
    entries.get(..length).ok_or("mp4 table is too small for its entries")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atoms_come_one_after_the_other() {
        let mut bytes = Vec::new();
        write_atom(&mut bytes, b"free", |_| ());
        write_atom(&mut bytes, b"udta", |out| out.extend_from_slice(b"text"));
        bytes.extend_from_slice(b"\0\0\0\x01mdat\0\0\0\0\0\0\0\x12ab");
        bytes.extend_from_slice(b"\0\0\0\0skip-to-the-end");
        let all: Vec<_> = atoms(&bytes).collect::<Result<_, _>>().unwrap();
        let expected: [(Kind, &[u8]); 4] =
            [(*b"free", b""), (*b"udta", b"text"), (*b"mdat", b"ab"), (*b"skip", b"-to-the-end")];
        assert_eq!(all, expected);
        assert_eq!(find(&bytes, b"udta"), Ok(Some(&b"text"[..])));
    }

    #[test]
    fn lengths_that_cannot_be_are_refused() {
        for bad in [&b"\0\0\0\x07free"[..], b"\0\0\0\x09free", b"\0\0\0\x01free\0\0\0\0\0\0\0\x0f", b"\0\0\0\x01free\0\0"] {
            assert!(atoms(bad).any(|atom| atom.is_err()), "{bad:?}");
        }
        assert!(table(b"\0\0\0\x02abcdefg", 0, 4).is_err());
        assert!(table(b"\xff\xff\xff\xffabcdefg", 0, 12).is_err());
    }
}
