//! Cutting a movie in time: a new head for it, and which bytes of the file's media data belong to that.
//!
//! Each track's sample tables are cut to the samples of the wanted time; then all chunk offsets move by the same number,
//! because the head in front of the media data has another length and the data begins later. What names samples by
//! number and is not cut here (sample groups, dependencies, edit lists) is left out of the new head.

use super::atoms::{Fault, Kind, atoms, be32, be64, find, table, write_atom};

/// What is wanted of the movie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// From which millisecond on.
    pub start_ms: u64,
    /// For how many milliseconds; `None` to the end.
    pub length_ms: Option<u64>,
    /// Video begins at the key frame before, and what is shown at the start.
    pub key_frame: bool,
}

/// A movie that was cut: what is sent before the media data, and which bytes of the file that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// `ftyp`, `moov` and the head of `mdat`.
    pub head: Vec<u8>,
    /// First byte of the media data in the file.
    pub start: u64,
    /// One past the last one.
    pub end: u64,
}

/// Samples of a track, by number: those that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Samples {
    start: u64,
    end: u64,
}

/// A track that was cut.
struct Track<'a> {
    payload: &'a [u8],
    samples: Samples,
    /// Duration of the samples that are kept, in the track's time scale.
    duration: u64,
    /// How much of that is before the wanted start.
    prefix: u64,
    /// The same duration as it is shown, in the movie's time scale.
    shown: u64,
    chunks: Chunks,
    /// Bytes of the file that its samples lie in.
    data: std::ops::Range<u64>,
}

/// The chunks that the kept samples lie in.
#[derive(Default)]
struct Chunks {
    /// `stsc`: first chunk (from 1), samples in each, sample description.
    runs: Vec<(u32, u32, u32)>,
    /// Offsets in the file.
    offsets: Vec<u64>,
    is_long: bool,
}

const SCALE: Fault = "mp4 time scale is zero";

/// Cuts a movie. `moov` is the payload of that atom, `file_size` the file's length.
pub fn cut(ftyp: &[u8], moov: &[u8], file_size: u64, wanted: Wanted) -> Result<Cut, Fault> {
    let mvhd = find(moov, b"mvhd")?.ok_or("no mp4 mvhd atom was found")?;
    let scale = time_scale(mvhd)?;
    let mut tracks = Vec::new();
    for atom in atoms(moov) {
        if let (kind, payload) = atom?
            && kind == *b"trak"
        {
            tracks.push(cut_track(payload, scale, wanted, file_size)?);
        }
    }
    if tracks.is_empty() {
        return Err("no mp4 trak atoms were found");
    }
    let kept = || tracks.iter().filter(|track| !track.chunks.offsets.is_empty());
    let start = kept().map(|track| track.data.start).min().ok_or("start time is out of mp4 samples")?;
    let end = kept().map(|track| track.data.end).max().unwrap_or(start);
    let shown = tracks.iter().map(|track| track.shown).max().unwrap_or(0);
    // Twice: the first head has the length that the offsets of the second need.
    let measured = write_head(ftyp, moov, &tracks, shown, end - start, None)?;
    let head = write_head(ftyp, moov, &tracks, shown, end - start, Some((start, measured.len() as u64)))?;
    debug_assert_eq!(head.len(), measured.len());
    Ok(Cut { head, start, end })
}

/// The time scale of `mvhd` or `mdhd`: units in a second.
fn time_scale(payload: &[u8]) -> Result<u32, Fault> {
    let at = if is_version_1(payload)? { 20 } else { 12 };
    be32(payload, at).and_then(|scale| if scale == 0 { Err(SCALE) } else { Ok(scale) })
}

fn is_version_1(payload: &[u8]) -> Result<bool, Fault> {
    Ok(payload.first().ok_or("mp4 atom is too small")? & 1 == 1)
}

fn to_units(ms: u64, scale: u32) -> u64 {
    (u128::from(ms) * u128::from(scale) / 1000).min(u128::from(u64::MAX)) as u64
}

fn rescaled(value: u64, from: u32, to: u32) -> u64 {
    (u128::from(value) * u128::from(to) / u128::from(from)).min(u128::from(u64::MAX)) as u64
}

fn sample_table(trak: &[u8]) -> Result<(&[u8], &[u8]), Fault> {
    let mdia = find(trak, b"mdia")?.ok_or("no mp4 mdia atom was found")?;
    let minf = find(mdia, b"minf")?.ok_or("no mp4 minf atom was found")?;
    let stbl = find(minf, b"stbl")?.ok_or("no mp4 stbl atom was found")?;
    Ok((mdia, stbl))
}

fn cut_track<'a>(payload: &'a [u8], scale: u32, wanted: Wanted, file_size: u64) -> Result<Track<'a>, Fault> {
    let (mdia, stbl) = sample_table(payload)?;
    let own_scale = time_scale(find(mdia, b"mdhd")?.ok_or("no mp4 mdhd atom was found")?)?;
    let stts = Times(table(find(stbl, b"stts")?.ok_or("no mp4 stts atoms were found")?, 4, 8)?);
    let start_time = to_units(wanted.start_ms, own_scale);
    let mut start = stts.sample_at(start_time);
    let end = match wanted.length_ms {
        None => stts.count(),
        Some(length) => stts.sample_at(start_time.saturating_add(to_units(length, own_scale))),
    };
    let mut prefix = 0;
    // A time beyond the last sample has no key frame before it, but nothing to show.
    if wanted.key_frame
        && start < stts.count()
        && let Some(stss) = find(stbl, b"stss")?
    {
        let key = key_frame_at(table(stss, 4, 4)?, start);
        prefix = stts.time_between(key, start);
        start = key;
    }
    let samples = Samples { start, end: end.max(start) };
    let sizes = Sizes::read(find(stbl, b"stsz")?.ok_or("no mp4 stsz atom was found")?)?;
    let (chunks, data) = cut_chunks(stbl, samples, &sizes, file_size)?;
    let duration = stts.time_between(samples.start, samples.end);
    let shown = rescaled(duration - prefix.min(duration), own_scale, scale);
    Ok(Track { payload, samples, duration, prefix, shown, chunks, data })
}

/// The last sample up to `sample` that a decoder can begin with; `sample` itself if there is none.
fn key_frame_at(stss: &[u8], sample: u64) -> u64 {
    let mut found = sample;
    for entry in stss.chunks_exact(4) {
        let number = u64::from(be32(entry, 0).unwrap_or(0));
        if number > sample + 1 {
            break;
        }
        found = number.saturating_sub(1);
    }
    found
}

/// `stts`: runs of samples of the same duration.
#[derive(Clone, Copy)]
struct Times<'a>(&'a [u8]);

impl Times<'_> {
    fn runs(self) -> impl Iterator<Item = (u64, u64)> {
        let number = |entry: &[u8], at| u64::from(be32(entry, at).unwrap_or(0));
        self.0.chunks_exact(8).map(move |entry| (number(entry, 0), number(entry, 4)))
    }

    fn count(self) -> u64 {
        self.runs().map(|(count, _)| count).sum()
    }

    /// The first sample that is shown at a time, which may last no time at all; the number of samples beyond the last.
    fn sample_at(self, mut time: u64) -> u64 {
        let mut sample = 0;
        for (count, duration) in self.runs() {
            if time == 0 || time < count * duration {
                return sample + time.checked_div(duration).unwrap_or(0);
            }
            time -= count * duration;
            sample += count;
        }
        sample
    }

    /// How long the samples from `start` to `end` are.
    fn time_between(self, start: u64, end: u64) -> u64 {
        self.parts(Samples { start, end }).map(|(count, duration)| count * duration).fold(0, u64::saturating_add)
    }

    /// The runs of a part.
    fn parts(self, samples: Samples) -> impl Iterator<Item = (u64, u64)> {
        overlaps(self.runs(), samples)
    }
}

/// Of runs of samples, what lies in a part.
fn overlaps<T>(
    runs: impl Iterator<Item = (u64, T)>,
    samples: Samples,
) -> impl Iterator<Item = (u64, T)> {
    let mut first = 0u64;
    runs.filter_map(move |(count, value)| {
        let (from, to) = (first.max(samples.start), (first + count).min(samples.end));
        first += count;
        (to > from).then(|| (to - from, value))
    })
}

/// `stsz`: the samples' sizes in bytes.
struct Sizes<'a> {
    uniform: u32,
    count: u64,
    each: &'a [u8],
}

impl<'a> Sizes<'a> {
    fn read(payload: &'a [u8]) -> Result<Sizes<'a>, Fault> {
        let (uniform, count) = (be32(payload, 4)?, u64::from(be32(payload, 8)?));
        let each = if uniform == 0 { table(payload, 8, 4)? } else { &[] };
        Ok(Sizes { uniform, count, each })
    }

    /// Bytes of the samples from `start` to `end`.
    fn between(&self, start: u64, end: u64) -> Result<u64, Fault> {
        if end > self.count || start > end {
            return Err("mp4 stsz atom has too few samples");
        }
        if self.uniform != 0 {
            return Ok((end - start) * u64::from(self.uniform));
        }
        let part = &self.each[start as usize * 4..end as usize * 4];
        Ok(part.chunks_exact(4).map(|size| u64::from(be32(size, 0).unwrap_or(0))).sum())
    }
}

/// Finds the chunks of the kept samples, and the bytes that those lie in.
fn cut_chunks(
    stbl: &[u8],
    samples: Samples,
    sizes: &Sizes,
    file_size: u64,
) -> Result<(Chunks, std::ops::Range<u64>), Fault> {
    let stsc = table(find(stbl, b"stsc")?.ok_or("no mp4 stsc atom was found")?, 4, 12)?;
    let (offsets, size, is_long) = match (find(stbl, b"stco")?, find(stbl, b"co64")?) {
        (Some(stco), _) => (table(stco, 4, 4)?, 4, false),
        (None, Some(co64)) => (table(co64, 4, 8)?, 8, true),
        (None, None) => return Err("no mp4 stco or co64 atoms were found"),
    };
    let offset_of = |chunk: u64| -> Result<u64, Fault> {
        let at = usize::try_from(chunk).ok().and_then(|chunk| chunk.checked_mul(size));
        let at = at.filter(|at| *at < offsets.len()).ok_or("mp4 chunk is out of its offsets")?;
        if is_long { be64(offsets, at) } else { be32(offsets, at).map(u64::from) }
    };
    let total = (offsets.len() / size) as u64;
    let mut chunks = Chunks { is_long, ..Chunks::default() };
    let (mut data_start, mut data_end) = (u64::MAX, 0);
    let mut first_sample = 0u64;
    let mut entries = stsc.chunks_exact(12).peekable();
    while let Some(entry) = entries.next() {
        let (first_chunk, in_each, description) =
            (u64::from(be32(entry, 0)?), u64::from(be32(entry, 4)?), be32(entry, 8)?);
        let next_chunk = match entries.peek() {
            Some(next) => u64::from(be32(next, 0)?),
            None => total + 1,
        };
        if first_chunk == 0 || next_chunk < first_chunk || in_each == 0 {
            return Err("mp4 stsc atom is out of order");
        }
        let run_end = first_sample.saturating_add((next_chunk - first_chunk) * in_each);
        let (from, to) = (first_sample.max(samples.start), run_end.min(samples.end));
        let mut sample = from;
        while sample < to {
            let chunk = first_chunk - 1 + (sample - first_sample) / in_each;
            let chunk_start = first_sample + (chunk + 1 - first_chunk) * in_each;
            let until = (chunk_start + in_each).min(to);
            let offset = offset_of(chunk)?.saturating_add(sizes.between(chunk_start, sample)?);
            let end = offset.saturating_add(sizes.between(sample, until)?);
            if end > file_size {
                return Err("mp4 samples are out of the file");
            }
            (data_start, data_end) = (data_start.min(offset), data_end.max(end));
            chunks.push(offset, (until - sample) as u32, description);
            sample = until;
        }
        first_sample = run_end;
    }
    if first_sample < samples.end {
        return Err("mp4 stsc atom has too few samples");
    }
    Ok((chunks, data_start.min(data_end)..data_end))
}

impl Chunks {
    fn push(&mut self, offset: u64, count: u32, description: u32) {
        self.offsets.push(offset);
        if self.runs.last().is_none_or(|run| (run.1, run.2) != (count, description)) {
            self.runs.push((self.offsets.len() as u32, count, description));
        }
    }
}

/// How chunk offsets move: the media data's place in the old file, and in the new one.
type Moved = Option<(u64, u64)>;

fn write_head(
    ftyp: &[u8],
    moov: &[u8],
    tracks: &[Track],
    shown: u64,
    data_length: u64,
    moved: Moved,
) -> Result<Vec<u8>, Fault> {
    let mut out = ftyp.to_vec();
    let mut fault = None;
    let mut tracks = tracks.iter();
    write_atom(&mut out, b"moov", |out| {
        for (kind, payload) in atoms(moov).flatten() {
            match &kind {
                b"mvhd" => write_duration(out, &kind, payload, shown, [16, 24]),
                b"trak" => match tracks.next() {
                    Some(track) => write_atom(out, &kind, |out| {
                        fault = write_track(out, track, moved).err().or(fault);
                    }),
                    None => fault = Some("mp4 trak atoms changed"),
                },
                _ => write_atom(out, &kind, |out| out.extend_from_slice(payload)),
            }
        }
    });
    if let Some(fault) = fault {
        return Err(fault);
    }
    match u32::try_from(data_length + 8) {
        Ok(length) => {
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(b"mdat");
        }
        Err(_) => {
            out.extend_from_slice(b"\0\0\0\x01mdat");
            out.extend_from_slice(&(data_length + 16).to_be_bytes());
        }
    }
    Ok(out)
}

/// Writes an atom with another duration, which stands at one place in version 0 and at another in version 1.
fn write_duration(out: &mut Vec<u8>, kind: &Kind, payload: &[u8], duration: u64, places: [usize; 2]) {
    write_atom(out, kind, |out| {
        let start = out.len();
        out.extend_from_slice(payload);
        let written = &mut out[start..];
        if payload.first().is_some_and(|version| version & 1 == 1) {
            if let Some(place) = written.get_mut(places[1]..places[1] + 8) {
                place.copy_from_slice(&duration.to_be_bytes());
            }
        } else if let Some(place) = written.get_mut(places[0]..places[0] + 4) {
            place.copy_from_slice(&u32::try_from(duration).unwrap_or(u32::MAX).to_be_bytes());
        }
    });
}

fn write_track(out: &mut Vec<u8>, track: &Track, moved: Moved) -> Result<(), Fault> {
    let mut result = Ok(());
    for (kind, payload) in atoms(track.payload).flatten() {
        match &kind {
            b"tkhd" => {
                write_duration(out, &kind, payload, track.shown, [20, 28]);
                if track.prefix > 0 {
                    write_edit_list(out, track);
                }
            }
            b"edts" => {}
            b"mdia" => write_atom(out, &kind, |out| {
                for (kind, payload) in atoms(payload).flatten() {
                    match &kind {
                        b"mdhd" => write_duration(out, &kind, payload, track.duration, [16, 24]),
                        b"minf" => write_atom(out, &kind, |out| {
                            for (kind, payload) in atoms(payload).flatten() {
                                write_atom(out, &kind, |out| match &kind {
                                    b"stbl" if result.is_ok() => {
                                        result = write_samples(out, payload, track, moved);
                                    }
                                    _ => out.extend_from_slice(payload),
                                });
                            }
                        }),
                        _ => write_atom(out, &kind, |out| out.extend_from_slice(payload)),
                    }
                }
            }),
            _ => write_atom(out, &kind, |out| out.extend_from_slice(payload)),
        }
    }
    result
}

/// Begins to show behind the prefix that only decoders need.
fn write_edit_list(out: &mut Vec<u8>, track: &Track) {
    write_atom(out, b"edts", |out| {
        write_atom(out, b"elst", |out| {
            // Version 1, no flags, one entry at normal speed.
            out.extend_from_slice(b"\x01\0\0\0\0\0\0\x01");
            out.extend_from_slice(&track.shown.to_be_bytes());
            out.extend_from_slice(&track.prefix.to_be_bytes());
            out.extend_from_slice(b"\0\x01\0\0");
        });
    });
}

/// What names samples by number and is not cut.
const LEFT_OUT: &[&Kind] = &[b"sdtp", b"sbgp", b"stdp", b"padb", b"stsh", b"saiz", b"saio", b"subs"];

fn write_samples(out: &mut Vec<u8>, stbl: &[u8], track: &Track, moved: Moved) -> Result<(), Fault> {
    for atom in atoms(stbl) {
        let (kind, payload) = atom?;
        if LEFT_OUT.contains(&&kind) {
            continue;
        }
        let mut result = Ok(());
        write_atom(out, &kind, |out| result = write_sample_atom(out, &kind, payload, track, moved));
        result?;
    }
    Ok(())
}

fn write_sample_atom(
    out: &mut Vec<u8>,
    kind: &Kind,
    payload: &[u8],
    track: &Track,
    moved: Moved,
) -> Result<(), Fault> {
    let samples = track.samples;
    match kind {
        b"stts" => {
            let entries = Times(table(payload, 4, 8)?).parts(samples);
            write_table(out, payload, entries.map(|(count, duration)| [count as u32, duration as u32]));
        }
        b"ctts" => {
            let runs = table(payload, 4, 8)?
                .chunks_exact(8)
                .map(|entry| (u64::from(be32(entry, 0).unwrap_or(0)), be32(entry, 4).unwrap_or(0)));
            let entries = overlaps(runs, samples);
            write_table(out, payload, entries.map(|(count, offset)| [count as u32, offset]));
        }
        b"stss" => {
            let entries = table(payload, 4, 4)?.chunks_exact(4).filter_map(|entry| {
                let sample = u64::from(be32(entry, 0).ok()?).checked_sub(1)?;
                let kept = sample >= samples.start && sample < samples.end;
                kept.then(|| [(sample - samples.start + 1) as u32])
            });
            write_table(out, payload, entries);
        }
        b"stsz" => {
            let sizes = Sizes::read(payload)?;
            out.extend_from_slice(&payload[..8]);
            out.extend_from_slice(&((samples.end - samples.start) as u32).to_be_bytes());
            if sizes.uniform == 0 {
                let (from, to) = (samples.start as usize * 4, samples.end as usize * 4);
                out.extend_from_slice(sizes.each.get(from..to).ok_or("mp4 stsz atom has too few samples")?);
            }
        }
        b"stsc" => write_table(
            out,
            payload,
            track.chunks.runs.iter().map(|(first, count, description)| [*first, *count, *description]),
        ),
        b"stco" | b"co64" => return write_offsets(out, payload, &track.chunks, moved),
        _ => out.extend_from_slice(payload),
    }
    Ok(())
}

/// Version and flags as they were, then entries with their number before them.
fn write_table<const N: usize>(out: &mut Vec<u8>, payload: &[u8], entries: impl Iterator<Item = [u32; N]>) {
    out.extend_from_slice(payload.get(..4).unwrap_or(&[0; 4]));
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    let mut count = 0u32;
    for entry in entries {
        count += 1;
        for number in entry {
            out.extend_from_slice(&number.to_be_bytes());
        }
    }
    out[at..at + 4].copy_from_slice(&count.to_be_bytes());
}

fn write_offsets(out: &mut Vec<u8>, payload: &[u8], chunks: &Chunks, moved: Moved) -> Result<(), Fault> {
    out.extend_from_slice(payload.get(..4).unwrap_or(&[0; 4]));
    out.extend_from_slice(&(chunks.offsets.len() as u32).to_be_bytes());
    for offset in &chunks.offsets {
        let (from, to) = moved.unwrap_or((0, 0));
        let offset = offset - from + to;
        if chunks.is_long {
            out.extend_from_slice(&offset.to_be_bytes());
        } else {
            // As long as nothing has moved, only the length matters.
            let short = u32::try_from(offset).or(if moved.is_none() { Ok(0) } else { Err(()) });
            let short = short.map_err(|()| "mp4 chunk offset does not fit")?;
            out.extend_from_slice(&short.to_be_bytes());
        }
    }
    Ok(())
}

/// The law of cutting, for any bytes as a movie: no panic, bounded output, and what comes out can be read again with as
/// many samples as it announces.
pub fn law_a_cut_movie_can_be_cut_again(moov: &[u8], file_size: u64, wanted: Wanted) {
    let Ok(first) = cut(b"", moov, file_size, wanted) else { return };
    assert!(first.start <= first.end && first.end <= file_size);
    assert!(first.head.len() <= moov.len() * 16 + 1000);
    let own = find(&first.head, b"moov").ok().flatten().expect("a head has a moov");
    let whole = Wanted { start_ms: 0, length_ms: None, key_frame: false };
    let new_size = first.head.len() as u64 + (first.end - first.start);
    let again = cut(b"", own, new_size, whole).expect("what was cut can be read");
    assert_eq!(again.end - again.start, first.end - first.start);
}
