//! The static table (RFC 7541 appendix A).

/// Names and values; the first has index 1.
pub(super) const STATIC_TABLE: [(&[u8], &[u8]); 61] = [
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"200"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"304"),
    (b":status", b"400"),
    (b":status", b"404"),
    (b":status", b"500"),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""),
    (b"accept-ranges", b""),
    (b"accept", b""),
    (b"access-control-allow-origin", b""),
    (b"age", b""),
    (b"allow", b""),
    (b"authorization", b""),
    (b"cache-control", b""),
    (b"content-disposition", b""),
    (b"content-encoding", b""),
    (b"content-language", b""),
    (b"content-length", b""),
    (b"content-location", b""),
    (b"content-range", b""),
    (b"content-type", b""),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"expect", b""),
    (b"expires", b""),
    (b"from", b""),
    (b"host", b""),
    (b"if-match", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"if-range", b""),
    (b"if-unmodified-since", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"max-forwards", b""),
    (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""),
    (b"range", b""),
    (b"referer", b""),
    (b"refresh", b""),
    (b"retry-after", b""),
    (b"server", b""),
    (b"set-cookie", b""),
    (b"strict-transport-security", b""),
    (b"transfer-encoding", b""),
    (b"user-agent", b""),
    (b"vary", b""),
    (b"via", b""),
    (b"www-authenticate", b""),
];

/// Longest name, in bytes.
const LONGEST: usize = 27;

/// For every length, where names of that length begin in `BY_LENGTH`.
const STARTS: [u8; LONGEST + 2] = {
    let mut starts = [0u8; LONGEST + 2];
    let mut at = 0;
    while at < STATIC_TABLE.len() {
        starts[STATIC_TABLE[at].0.len() + 1] += 1;
        at += 1;
    }
    let mut length = 1;
    while length < LONGEST + 2 {
        starts[length] += starts[length - 1];
        length += 1;
    }
    starts
};

/// Places in the table, sorted by the length of the name and then by place.
const BY_LENGTH: [u8; STATIC_TABLE.len()] = {
    let mut next = STARTS;
    let mut sorted = [0u8; STATIC_TABLE.len()];
    let mut at = 0;
    while at < STATIC_TABLE.len() {
        let length = STATIC_TABLE[at].0.len();
        sorted[next[length] as usize] = at as u8;
        next[length] += 1;
        at += 1;
    }
    sorted
};

/// What the table has for a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StaticMatch {
    /// Neither name nor value.
    None,
    /// The name, at its first index.
    Name(u8),
    /// Name and value.
    Whole(u8),
}

/// Looks a field up. `name` is in lower case.
pub(super) fn find(name: &[u8], value: &[u8]) -> StaticMatch {
    if name.len() > LONGEST {
        return StaticMatch::None;
    }
    let mut found = StaticMatch::None;
    for &place in &BY_LENGTH[STARTS[name.len()] as usize..STARTS[name.len() + 1] as usize] {
        let (entry_name, entry_value) = STATIC_TABLE[place as usize];
        if entry_name != name {
            continue;
        }
        if !entry_value.is_empty() && entry_value == value {
            return StaticMatch::Whole(place + 1);
        }
        if found == StaticMatch::None {
            found = StaticMatch::Name(place + 1);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_found() {
        for (at, (name, value)) in STATIC_TABLE.iter().enumerate() {
            let index = at as u8 + 1;
            let first = STATIC_TABLE.iter().position(|(other, _)| other == name).unwrap() as u8 + 1;
            let expected =
                if value.is_empty() { StaticMatch::Name(first) } else { StaticMatch::Whole(index) };
            assert_eq!(find(name, value), expected);
            assert_eq!(find(name, b"something else"), StaticMatch::Name(first));
        }
        assert_eq!(find(b"x-other", b""), StaticMatch::None);
        assert_eq!(find(b"", b""), StaticMatch::None);
        assert_eq!(find(&[b'a'; 28], b""), StaticMatch::None);
        assert_eq!(STATIC_TABLE.iter().map(|(name, _)| name.len()).max(), Some(LONGEST));
    }
}
