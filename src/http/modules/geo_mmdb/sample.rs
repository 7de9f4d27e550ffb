//! A small MaxMind database, written by hand after the format's specification (version 2.0).

/// 0.0.0.0/2 has a record with values of many kinds, 128.0.0.0/1 one with a country alone, 64.0.0.0/2 none.
pub fn database() -> Vec<u8> {
    let rich = map(&[
        ("country", map(&[("iso_code", text("NL")), ("names", map(&[("en", text("Netherlands"))]))])),
        ("list", list(&[text("one"), text("two")])),
        ("number", number(4711)),
        ("flag", extended(14, 1)),
        ("latitude", [&[3 << 5 | 8][..], &52.5f64.to_be_bytes()].concat()),
    ]);
    let poor = map(&[("country", map(&[("iso_code", text("DE"))]))]);
    const NODES: u32 = 2;
    // A record beyond the nodes is a place in the data, which begins 16 bytes behind the tree.
    let place = |offset: usize| NODES + 16 + offset as u32;
    let tree = [[1, place(rich.len())], [place(0), NODES]];
    let mut out = Vec::new();
    for record in tree.into_iter().flatten() {
        out.extend_from_slice(&record.to_be_bytes()[1..]);
    }
    out.extend_from_slice(&[0; 16]);
    out.extend_from_slice(&rich);
    out.extend_from_slice(&poor);
    out.extend_from_slice(b"\xab\xcd\xefMaxMind.com");
    out.extend_from_slice(&map(&[
        ("binary_format_major_version", short(2)),
        ("binary_format_minor_version", short(0)),
        ("build_epoch", [&extended(9, 4)[..], &1_700_000_000u32.to_be_bytes()].concat()),
        ("database_type", text("Sample")),
        ("description", map(&[("en", text("Sample"))])),
        ("ip_version", short(4)),
        ("languages", list(&[text("en")])),
        ("node_count", number(NODES)),
        ("record_size", short(24)),
    ]));
    out
}

/// Types from 8 on stand in a byte of their own.
fn extended(kind: u8, size: u8) -> Vec<u8> {
    vec![size, kind - 7]
}

fn text(text: &str) -> Vec<u8> {
    [&[2 << 5 | text.len() as u8][..], text.as_bytes()].concat()
}

fn short(number: u16) -> Vec<u8> {
    [&[5 << 5 | 2][..], &number.to_be_bytes()].concat()
}

fn number(number: u32) -> Vec<u8> {
    [&[6 << 5 | 4][..], &number.to_be_bytes()].concat()
}

fn list(values: &[Vec<u8>]) -> Vec<u8> {
    [extended(11, values.len() as u8), values.concat()].concat()
}

fn map(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut out = vec![7 << 5 | entries.len() as u8];
    for (name, value) in entries {
        // Keys of up to 28 bytes stand in one size byte.
        out.extend_from_slice(&text(name));
        out.extend_from_slice(value);
    }
    out
}
