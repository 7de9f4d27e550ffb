//! Movies made here, cut, and read again sample by sample.

use proptest::prelude::*;

use super::atoms::{atoms, be32, be64, find, table, write_atom};
use super::*;
use crate::http::testing::World;

/// A track: how long each sample is and what is in it, and how many samples each chunk has.
#[derive(Clone, Debug)]
struct TestTrack {
    scale: u32,
    samples: Vec<(u32, Vec<u8>)>,
    in_chunk: Vec<usize>,
    key_frames: Vec<u32>,
    long_offsets: bool,
}

fn numbers(out: &mut Vec<u8>, numbers: &[u32]) {
    for number in numbers {
        out.extend_from_slice(&number.to_be_bytes());
    }
}

/// A movie in a time scale of 1000, chunks of the tracks in turn; `mdat` before or behind `moov`.
fn movie(tracks: &[TestTrack], data_first: bool) -> Vec<u8> {
    let mut ftyp = Vec::new();
    write_atom(&mut ftyp, b"ftyp", |out| out.extend_from_slice(b"isom\0\0\0\0"));
    let head_length = |offsets: &[Vec<u64>]| moov(tracks, offsets).len() as u64;
    let empty: Vec<Vec<u64>> = tracks.iter().map(|track| vec![0; track.in_chunk.len()]).collect();
    let mut position = ftyp.len() as u64 + 8 + if data_first { 0 } else { head_length(&empty) };
    let mut data = Vec::new();
    let mut offsets = vec![Vec::new(); tracks.len()];
    let mut taken = vec![0; tracks.len()];
    for chunk in 0..tracks.iter().map(|track| track.in_chunk.len()).max().unwrap_or(0) {
        for (number, track) in tracks.iter().enumerate() {
            let Some(count) = track.in_chunk.get(chunk) else { continue };
            offsets[number].push(position);
            for (_, sample) in &track.samples[taken[number]..taken[number] + count] {
                data.extend_from_slice(sample);
                position += sample.len() as u64;
            }
            taken[number] += count;
        }
    }
    let mut mdat = Vec::new();
    write_atom(&mut mdat, b"mdat", |out| out.extend_from_slice(&data));
    let moov = moov(tracks, &offsets);
    if data_first { [ftyp, mdat, moov].concat() } else { [ftyp, moov, mdat].concat() }
}

fn moov(tracks: &[TestTrack], offsets: &[Vec<u64>]) -> Vec<u8> {
    let mut out = Vec::new();
    write_atom(&mut out, b"moov", |out| {
        write_atom(out, b"mvhd", |out| numbers(out, &[0, 0, 0, 1000, 99, 0x10000]));
        for (track, offsets) in tracks.iter().zip(offsets) {
            write_atom(out, b"trak", |out| {
                write_atom(out, b"tkhd", |out| numbers(out, &[0, 0, 0, 1, 0, 99, 0]));
                write_atom(out, b"edts", |_| ());
                write_atom(out, b"mdia", |out| {
                    write_atom(out, b"mdhd", |out| numbers(out, &[0, 0, 0, track.scale, 99, 0]));
                    write_atom(out, b"minf", |out| {
                        write_atom(out, b"vmhd", |_| ());
                        write_atom(out, b"stbl", |out| sample_tables(out, track, offsets));
                    });
                });
            });
        }
    });
    out
}

fn sample_tables(out: &mut Vec<u8>, track: &TestTrack, offsets: &[u64]) {
    let count = track.samples.len() as u32;
    write_atom(out, b"stsd", |out| numbers(out, &[0, 0]));
    write_atom(out, b"stts", |out| {
        numbers(out, &[0, count]);
        track.samples.iter().for_each(|(duration, _)| numbers(out, &[1, *duration]));
    });
    write_atom(out, b"ctts", |out| {
        numbers(out, &[0, count]);
        (0..count).for_each(|number| numbers(out, &[1, number]));
    });
    if !track.key_frames.is_empty() {
        write_atom(out, b"stss", |out| {
            numbers(out, &[0, track.key_frames.len() as u32]);
            numbers(out, &track.key_frames);
        });
    }
    write_atom(out, b"stsz", |out| {
        numbers(out, &[0, 0, count]);
        track.samples.iter().for_each(|(_, sample)| numbers(out, &[sample.len() as u32]));
    });
    write_atom(out, b"stsc", |out| {
        numbers(out, &[0, track.in_chunk.len() as u32]);
        for (chunk, count) in track.in_chunk.iter().enumerate() {
            numbers(out, &[chunk as u32 + 1, *count as u32, 1]);
        }
    });
    if track.long_offsets {
        write_atom(out, b"co64", |out| {
            numbers(out, &[0, offsets.len() as u32]);
            offsets.iter().for_each(|offset| out.extend_from_slice(&offset.to_be_bytes()));
        });
    } else {
        write_atom(out, b"stco", |out| {
            numbers(out, &[0, offsets.len() as u32]);
            offsets.iter().for_each(|offset| numbers(out, &[*offset as u32]));
        });
    }
    write_atom(out, b"sdtp", |_| ());
}

/// A track as a player reads it: each sample with its duration, its composition offset and its bytes.
#[derive(Debug, PartialEq)]
struct Read {
    samples: Vec<(u32, u32, Vec<u8>)>,
    key_frames: Vec<u32>,
    edit: Option<(u64, u64)>,
    durations: (u32, u32),
}

fn path<'a>(mut payload: &'a [u8], kinds: &[&[u8; 4]]) -> Option<&'a [u8]> {
    for kind in kinds {
        payload = find(payload, kind).unwrap()?;
    }
    Some(payload)
}

fn read(file: &[u8]) -> Vec<Read> {
    let moov = path(file, &[b"moov"]).expect("moov");
    let traks = atoms(moov).map(Result::unwrap).filter(|(kind, _)| kind == b"trak");
    traks.map(|(_, trak)| read_track(file, trak)).collect()
}

fn read_track(file: &[u8], trak: &[u8]) -> Read {
    let stbl = path(trak, &[b"mdia", b"minf", b"stbl"]).expect("stbl");
    assert!(path(stbl, &[b"sdtp"]).is_none() || path(trak, &[b"edts"]).is_some_and(<[u8]>::is_empty));
    let entries = |kind: &[u8; 4], at, size| -> Vec<Vec<u32>> {
        let Some(payload) = path(stbl, &[kind]) else { return Vec::new() };
        let entry = |entry: &[u8]| entry.chunks(4).map(|number| be32(number, 0).unwrap()).collect();
        table(payload, at, size).unwrap().chunks(size).map(entry).collect()
    };
    let expand = |kind| -> Vec<u32> {
        entries(kind, 4, 8).iter().flat_map(|entry| vec![entry[1]; entry[0] as usize]).collect()
    };
    let (durations, shifts) = (expand(b"stts"), expand(b"ctts"));
    let sizes: Vec<u32> = entries(b"stsz", 8, 4).concat();
    let offsets: Vec<u64> = match path(stbl, &[b"co64"]) {
        Some(co64) => table(co64, 4, 8).unwrap().chunks(8).map(|eight| be64(eight, 0).unwrap()).collect(),
        None => entries(b"stco", 4, 4).concat().into_iter().map(u64::from).collect(),
    };
    let runs = entries(b"stsc", 4, 12);
    let mut samples = Vec::new();
    for (chunk, offset) in offsets.iter().enumerate() {
        let run = runs.iter().rev().find(|run| run[0] as usize <= chunk + 1).expect("a run");
        let mut at = *offset as usize;
        for _ in 0..run[1] {
            let number = samples.len();
            let end = at + sizes[number] as usize;
            samples.push((durations[number], shifts[number], file[at..end].to_vec()));
            at = end;
        }
    }
    assert_eq!((samples.len(), samples.len()), (sizes.len(), durations.len()));
    let edit = path(trak, &[b"edts", b"elst"]).map(|elst| (be64(elst, 8).unwrap(), be64(elst, 16).unwrap()));
    let tkhd = path(trak, &[b"tkhd"]).expect("tkhd");
    let mdhd = path(trak, &[b"mdia", b"mdhd"]).expect("mdhd");
    Read {
        samples,
        key_frames: entries(b"stss", 4, 4).concat(),
        edit,
        durations: (be32(tkhd, 20).unwrap(), be32(mdhd, 16).unwrap()),
    }
}

fn video() -> TestTrack {
    TestTrack {
        scale: 100,
        samples: (0..10u8).map(|number| (50, vec![b'a' + number; 3 + usize::from(number)])).collect(),
        in_chunk: vec![3, 4, 3],
        key_frames: vec![1, 5, 9],
        long_offsets: false,
    }
}

fn audio() -> TestTrack {
    TestTrack {
        scale: 1000,
        samples: (0..20u8).map(|number| (250, vec![b'A' + number; 2])).collect(),
        in_chunk: vec![7, 7, 6],
        key_frames: Vec::new(),
        long_offsets: true,
    }
}

fn world(directives: &str, file: Vec<u8>) -> World {
    World::new(&format!("server {{ root /srv; location / {{ mp4; {directives} }} }}")).file("/srv/a.mp4", file)
}

/// What a track's samples are, by their letters.
fn letters(track: &Read) -> String {
    track.samples.iter().map(|(.., bytes)| bytes[0] as char).collect()
}

#[test]
fn a_movie_is_cut_to_the_samples_of_its_time() {
    for data_first in [false, true] {
        let file = movie(&[video(), audio()], data_first);
        let mut world = world("", file.clone());
        let whole = world.get("/a.mp4");
        assert_eq!(whole.body, file);
        let reply = world.get("/a.mp4?start=1.7&end=3.5");
        assert_eq!(reply.status, 200, "{:?}", reply.log);
        assert_eq!(reply.field("Content-Length"), reply.body.len().to_string());
        assert_ne!(reply.field("ETag"), whole.field("ETag"));
        let tracks = read(&reply.body);
        assert_eq!([letters(&tracks[0]), letters(&tracks[1])], ["defg", "GHIJKLMN"]);
        assert_eq!(tracks[0].samples[0], (50, 3, b"dddddd".to_vec()));
        // Sample 5 was a key frame; it is the second one now.
        assert_eq!((&tracks[0].key_frames[..], tracks[0].edit), (&[2][..], None));
        assert_eq!((tracks[0].durations, tracks[1].durations), ((2000, 200), (2000, 2000)));
        let rest = read(&world.get("/a.mp4?start=4.5").body);
        assert_eq!([letters(&rest[0]), letters(&rest[1])], ["j", "ST"]);
        let begin = read(&world.get("/a.mp4?end=1").body);
        assert_eq!([letters(&begin[0]), letters(&begin[1])], ["ab", "ABCD"]);
    }
}

#[test]
fn with_key_frames_video_begins_at_one_and_is_shown_from_the_start() {
    let mut world = world("mp4_start_key_frame on;", movie(&[video(), audio()], false));
    let tracks = read(&world.get("/a.mp4?start=3.5").body);
    assert_eq!([letters(&tracks[0]), letters(&tracks[1])], ["efghij", "OPQRST"]);
    // Three samples of half a second come before what is shown, which lasts a second and a half.
    assert_eq!(tracks[0].edit, Some((1500, 150)));
    assert_eq!((tracks[0].durations, tracks[1].edit), ((1500, 300), None));
}

#[test]
fn what_cannot_be_cut_is_an_error_and_what_is_no_time_is_the_whole() {
    let file = movie(&[video()], false);
    let mut sound = world("", file.clone());
    for (args, status) in
        [("start=5", 500), ("start=99999", 500), ("start=99999999999999999", 200), ("start=x", 200), ("end=0", 200), ("start=", 200)]
    {
        assert_eq!(sound.get(&format!("/a.mp4?{args}")).status, status, "{args}");
    }
    assert_eq!(sound.get("/a.mp4?start=0&end=0").body.len(), file.len() - 16, "only two empty atoms are gone");
    for bad in [&b""[..], b"no video at all", &file[..100], &file[..file.len() - 1]] {
        assert_eq!(world("", bad.to_vec()).get("/a.mp4?start=1").status, 500);
    }
    let reply = world("mp4_max_buffer_size 100;", file).get("/a.mp4?start=1");
    assert_eq!(reply.status, 500);
    assert!(reply.log[0].contains("you may want to increase mp4_max_buffer_size"), "{:?}", reply.log);
}

#[test]
fn samples_that_last_no_time_are_kept_at_the_start() {
    let mut track = video();
    for (duration, _) in &mut track.samples[..3] {
        *duration = 0;
    }
    let mut world = world("", movie(&[track], false));
    assert_eq!(letters(&read(&world.get("/a.mp4?end=1").body)[0]), "abcde");
    assert_eq!(letters(&read(&world.get("/a.mp4?start=0.5").body)[0]), "efghij");
}

#[test]
fn seconds_have_as_many_digits_as_one_likes() {
    for (text, ms) in [("1", Some(1000)), ("1.5", Some(1500)), (".25", Some(250)), ("0.123999", Some(123)), ("1.", Some(1000))] {
        assert_eq!(milliseconds(text.as_bytes()), ms, "{text}");
    }
    for text in ["", "-1", "1,5", "1.x", "1.5.5", "99999999999999999999"] {
        assert_eq!(milliseconds(text.as_bytes()), None, "{text}");
    }
}

fn any_track() -> impl Strategy<Value = TestTrack> {
    let sample = (1u32..100, proptest::collection::vec(any::<u8>(), 1..9));
    (proptest::collection::vec(sample, 1..40), proptest::collection::vec(1usize..6, 40), any::<bool>()).prop_map(
        |(samples, sizes, long_offsets)| {
            let mut left = samples.len();
            let in_chunk = sizes.into_iter().map(|size| {
                let taken = size.min(left);
                left -= taken;
                taken
            });
            let in_chunk = in_chunk.filter(|size| *size > 0).collect();
            TestTrack { scale: 100, samples, in_chunk, key_frames: Vec::new(), long_offsets }
        },
    )
}

proptest! {
    #[test]
    fn every_cut_has_the_samples_of_its_time_and_no_others(
        tracks in proptest::collection::vec(any_track(), 1..4),
        start in 0u64..20_000,
        length in proptest::option::of(1u64..20_000),
        data_first in any::<bool>(),
    ) {
        let file = movie(&tracks, data_first);
        let end = length.map_or(String::new(), |length| format!("&end={}.{:03}", (start + length) / 1000, (start + length) % 1000));
        let reply = world("", file).get(&format!("/a.mp4?start={}.{:03}{end}", start / 1000, start % 1000));
        // In units of a hundredth of a second: the sample that is shown at the start, up to the one shown at the end.
        let (from, to) = (start / 10, length.map_or(u64::MAX, |length| start / 10 + length / 10));
        let expected: Vec<Vec<Vec<u8>>> = tracks.iter().map(|track| {
            let mut time = 0;
            let shown = track.samples.iter().filter_map(|(duration, bytes)| {
                time += u64::from(*duration);
                (time > from && (to == u64::MAX || time <= to)).then(|| bytes.clone())
            });
            shown.collect()
        }).collect();
        if reply.status == 200 {
            let read = read(&reply.body);
            let found: Vec<Vec<Vec<u8>>> = read
                .iter()
                .map(|track| track.samples.iter().map(|(.., bytes)| bytes.clone()).collect())
                .collect();
            prop_assert_eq!(found, expected);
        } else {
            prop_assert!(expected.iter().all(Vec::is_empty), "{:?}", reply.log);
        }
    }
}
