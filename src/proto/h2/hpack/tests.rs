//! The examples of RFC 7541 appendix C, its rules, and a comparison with another implementation.

use proptest::prelude::*;

use crate::message::Fields;

use super::{Budget, Decoded, Decoder, Encoder, HpackError, Indexing};

type List = Vec<(Vec<u8>, Vec<u8>)>;

const AMPLE: Budget = Budget { list: 1 << 20, string: 1 << 16, count: 1000 };

fn decode_within(
    decoder: &mut Decoder,
    mut block: &[u8],
    mut budget: Budget,
) -> Result<(List, bool), HpackError> {
    let mut fields = Fields::default();
    let mut list = Vec::new();
    let (mut is_first, mut too_large) = (true, false);
    loop {
        match decoder.next(&mut block, is_first, &mut fields, &mut budget)? {
            Decoded::Field { name, value } => {
                list.push((fields.get(name).to_vec(), fields.get(value).to_vec()));
            }
            Decoded::TooLarge => too_large = true,
            Decoded::End => return Ok((list, too_large)),
        }
        is_first = false;
    }
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<List, HpackError> {
    decode_within(decoder, block, AMPLE).map(|(list, _)| list)
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let digit = |byte: u8| (byte as char).to_digit(16).unwrap() as u8;
    digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

fn list(lines: &[(&str, &str)]) -> List {
    lines.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

type Example<'a> = (&'a str, &'a [(&'a str, &'a str)], usize);

/// Blocks one after the other, each with its fields and the table's size behind it.
fn example(table_size: usize, blocks: &[Example]) {
    let mut decoder = Decoder::new(table_size);
    for (block, lines, size) in blocks {
        assert_eq!(decode(&mut decoder, &hex(block)), Ok(list(lines)), "{block}");
        assert_eq!(decoder.table().size(), *size, "{block}");
    }
}

/// Appendix C.2.
#[test]
fn every_representation_of_a_field_is_read() {
    example(
        4096,
        &[(
            "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
            &[("custom-key", "custom-header")],
            55,
        )],
    );
    example(4096, &[("040c 2f73 616d 706c 652f 7061 7468", &[(":path", "/sample/path")], 0)]);
    example(4096, &[("1008 7061 7373 776f 7264 0673 6563 7265 74", &[("password", "secret")], 0)]);
    example(4096, &[("82", &[(":method", "GET")], 0)]);
}

/// Appendix C.3 and C.4: the same requests, without and with Huffman code.
#[test]
fn the_requests_of_the_rfc_are_read() {
    let first: &[(&str, &str)] =
        &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];
    let second: &[(&str, &str)] = &[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "www.example.com"),
        ("cache-control", "no-cache"),
    ];
    let third: &[(&str, &str)] = &[
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/index.html"),
        (":authority", "www.example.com"),
        ("custom-key", "custom-value"),
    ];
    example(
        4096,
        &[
            ("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", first, 57),
            ("8286 84be 5808 6e6f 2d63 6163 6865", second, 110),
            ("8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65", third, 164),
        ],
    );
    example(
        4096,
        &[
            ("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", first, 57),
            ("8286 84be 5886 a8eb 1064 9cbf", second, 110),
            ("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf", third, 164),
        ],
    );
}

/// Appendix C.5 and C.6: responses with a table of 256 bytes, so that entries are driven out.
#[test]
fn the_responses_of_the_rfc_are_read() {
    let first: &[(&str, &str)] = &[
        (":status", "302"),
        ("cache-control", "private"),
        ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
        ("location", "https://www.example.com"),
    ];
    let second: &[(&str, &str)] = &[
        (":status", "307"),
        ("cache-control", "private"),
        ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
        ("location", "https://www.example.com"),
    ];
    let third: &[(&str, &str)] = &[
        (":status", "200"),
        ("cache-control", "private"),
        ("date", "Mon, 21 Oct 2013 20:13:22 GMT"),
        ("location", "https://www.example.com"),
        ("content-encoding", "gzip"),
        ("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
    ];
    example(256, &[
        (
            "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133
             3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            first,
            222,
        ),
        ("4803 3330 37c1 c0bf", second, 222),
        (
            "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a
             6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d
             6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
            third,
            215,
        ),
    ]);
    example(256, &[
        (
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d
             29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
            first,
            222,
        ),
        ("4883 640e ffc1 c0bf", second, 222),
        (
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d
             d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106
             3d50 07",
            third,
            215,
        ),
    ]);
}

/// Appendix C.1 by way of table sizes and indexes, and section 5.1's bounds.
#[test]
fn integers_are_bounded() {
    let mut decoder = Decoder::new(4096);
    assert_eq!(decode(&mut decoder, &hex("3f 9a 0a")), Ok(vec![]), "1337");
    assert_eq!(decoder.table().max_size(), 1337 + 31 - 31);
    for (block, error) in [
        ("3f", HpackError::Truncated),
        ("3f ff", HpackError::Truncated),
        ("3f ff ff ff ff ff", HpackError::IntegerTooLarge),
        ("3f ff ff ff ff ff ff ff ff ff ff 00", HpackError::IntegerTooLarge),
        ("3f ff ff ff ff 7f", HpackError::IntegerTooLarge),
        ("3f 80 80 80 80 80 00", HpackError::IntegerTooLarge),
        ("ff 80 80 80 80 10", HpackError::IntegerTooLarge),
    ] {
        assert_eq!(decode(&mut Decoder::new(4096), &hex(block)), Err(error), "{block}");
    }
}

/// Sections 2.3.3, 4.2, 5.2, 6.1 and 6.3.
#[test]
fn broken_blocks_are_refused() {
    for (block, error) in [
        ("80", HpackError::InvalidIndex),
        ("be", HpackError::InvalidIndex),
        ("ff 00", HpackError::InvalidIndex),
        ("7e 01 61", HpackError::InvalidIndex),
        ("40", HpackError::Truncated),
        ("40 01", HpackError::Truncated),
        ("40 01 61", HpackError::Truncated),
        ("40 01 61 02 62", HpackError::Truncated),
        ("00 81 18 01 61", HpackError::InvalidHuffman),
        ("00 01 61 84 ff ff ff ff", HpackError::InvalidHuffman),
        ("3f e2 1f", HpackError::TableTooLarge),
        ("82 20", HpackError::LateSizeUpdate),
    ] {
        assert_eq!(decode(&mut Decoder::new(4096), &hex(block)), Err(error), "{block}");
    }
    assert_eq!(decode(&mut Decoder::new(4096), &hex("20 3f e1 1f 82")), Ok(list(&[(":method", "GET")])));
}

#[test]
fn a_list_beyond_its_budget_is_not_kept_but_the_table_goes_on() {
    let mut decoder = Decoder::new(4096);
    let budget = Budget { list: 100, string: 50, count: 2 };
    // a: b into the table, then :method: GET, then two more.
    let block = hex("40 01 61 01 62 82 40 01 63 01 64 84");
    let (kept, too_large) = decode_within(&mut decoder, &block, budget).unwrap();
    assert_eq!(kept, list(&[("a", "b"), (":method", "GET")]));
    assert!(too_large);
    assert_eq!(decode(&mut decoder, &hex("be bf")), Ok(list(&[("c", "d"), ("a", "b")])));
    let long = Budget { string: 0, ..budget };
    assert_eq!(decode_within(&mut decoder, &hex("be 82"), long), Ok((vec![], true)));
    let small = Budget { list: 33, ..budget };
    assert_eq!(decode_within(&mut decoder, &hex("be"), small), Ok((vec![], true)));
    // A thousand references to one large entry cost no memory.
    let mut bomb = hex("40 01 61 7f 80 1e");
    bomb.extend_from_slice(&[b'x'; 127 + 3840]);
    bomb.extend_from_slice(&[0xbe; 1000]);
    let mut fields = Fields::default();
    let mut decoder = Decoder::new(4096);
    let (mut rest, mut budget) = (&bomb[..], Budget { list: 32 << 10, string: 8 << 10, count: 1000 });
    while decoder.next(&mut rest, true, &mut fields, &mut budget).unwrap() != Decoded::End {}
    assert!(fields.capacity() < 128 << 10, "{}", fields.capacity());
}

fn encode(encoder: &mut Encoder, lines: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    encoder.begin(&mut out);
    for (name, value) in lines {
        encoder.field(name, value, Indexing::Repeated, &mut out);
    }
    out
}

#[test]
fn what_comes_again_is_one_byte_the_third_time() {
    let mut encoder = Encoder::default();
    let line: &[(&[u8], &[u8])] = &[(b"Server", b"thalweg")];
    let lengths: Vec<usize> = (0..4).map(|_| encode(&mut encoder, line).len()).collect();
    assert_eq!(lengths, [8, 7, 1, 1]);
    assert_eq!(encoder.table().len(), 1);
    for count in 0..200 {
        encode(&mut encoder, &[(b"content-length", count.to_string().as_bytes())]);
    }
    assert_eq!(encoder.table().len(), 1, "what comes once is not kept");
}

#[test]
fn secrets_are_never_indexed() {
    let mut encoder = Encoder::default();
    for _ in 0..3 {
        let mut out = Vec::new();
        encoder.field(b"set-cookie", b"a=b", Indexing::Never, &mut out);
        assert_eq!(out[0], 0x1f, "the pattern 0001");
    }
    assert_eq!(encoder.table().len(), 0);
}

/// Section 4.2: the least size since the last block, then the one that holds.
#[test]
fn a_changed_table_size_is_announced_with_the_next_block() {
    let mut encoder = Encoder::default();
    encoder.set_max_table_size(65_536);
    assert_eq!(encode(&mut encoder, &[]), b"", "no more than before is used");
    encoder.set_max_table_size(0);
    encoder.set_max_table_size(100);
    assert_eq!(encode(&mut encoder, &[]), hex("20 3f 45"));
    assert_eq!(encode(&mut encoder, &[]), b"");
    encoder.set_max_table_size(4096);
    assert_eq!(encode(&mut encoder, &[]), hex("3f e1 1f"));
}

#[test]
fn statuses_are_indexed_or_literal() {
    let mut out = Vec::new();
    Encoder::default().status(404, &mut out);
    Encoder::default().status(418, &mut out);
    let decoded = decode(&mut Decoder::new(4096), &out).unwrap();
    assert_eq!(decoded, list(&[(":status", "404"), (":status", "418")]));
}

/// Names and values that are a few, so that they come again.
fn lines() -> impl Strategy<Value = Vec<(Vec<u8>, Vec<u8>)>> {
    let name = prop_oneof![
        "[a-c]{1,3}".prop_map(String::into_bytes),
        Just(b"cookie".to_vec()),
        Just(b":path".to_vec()),
        Just(b":status".to_vec()),
        Just(b"content-type".to_vec()),
    ];
    let value = prop_oneof![
        "[0-9]".prop_map(String::into_bytes),
        Just(b"/".to_vec()),
        Just(b"200".to_vec()),
        Just(vec![b'v'; 900]),
        proptest::collection::vec(any::<u8>(), 0..300),
    ];
    proptest::collection::vec((name, value), 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is sent in whatever order and with whatever table sizes is read as it was, by this decoder and by another.
    #[test]
    fn fields_survive_both_decoders(blocks in proptest::collection::vec((lines(), any::<Option<u16>>()), 1..12)) {
        let mut encoder = Encoder::default();
        let mut ours = Decoder::new(4096);
        let mut theirs = loona_hpack::Decoder::new();
        for (lines, size) in blocks {
            if let Some(size) = size {
                encoder.set_max_table_size(u32::from(size) % 5000);
            }
            let slices: Vec<(&[u8], &[u8])> = lines.iter().map(|(name, value)| (&name[..], &value[..])).collect();
            let block = encode(&mut encoder, &slices);
            prop_assert_eq!(&decode(&mut ours, &block).unwrap(), &lines);
            prop_assert_eq!(&theirs.decode(&block).unwrap(), &lines);
            prop_assert!(ours.table().size() == encoder.table().size());
        }
    }

    /// What another encoder writes is read as it was.
    #[test]
    fn another_encoders_blocks_are_read(blocks in proptest::collection::vec(lines(), 1..8)) {
        let mut theirs = loona_hpack::Encoder::new();
        let mut ours = Decoder::new(4096);
        for lines in blocks {
            let block = theirs.encode(lines.iter().map(|(name, value)| (&name[..], &value[..])));
            prop_assert_eq!(&decode(&mut ours, &block).unwrap(), &lines);
        }
    }

    /// Where both decoders take any bytes, they read the same; ours takes or refuses without a panic.
    #[test]
    fn two_decoders_agree_on_any_bytes(blocks: Vec<Vec<u8>>) {
        let mut ours = Decoder::new(4096);
        let mut theirs = loona_hpack::Decoder::new();
        for block in blocks {
            match (decode(&mut ours, &block), theirs.decode(&block)) {
                (Ok(ours), Ok(theirs)) => prop_assert_eq!(ours, theirs),
                _ => break,
            }
        }
    }
}
