//! `split_clients`: a variable whose value is chosen by a hash of a text, each for a share of the texts.

use std::sync::Arc;

use crate::conf::directive::{Arity, Call, Complaint};
use crate::conf::template::Template;
use crate::conf::tree;
use crate::http::build::Scope;
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::settings::contexts::HTTP;
use crate::http::settings::settings;
use crate::http::variables::Compute;

settings! {
    module split_clients;
    fields {
    }
    plain {
        /// A variable that divides clients into groups of given shares.
        "split_clients" HTTP, Arity::exactly(2).block(), default "", set_split_clients;
    }
}

/// 100% in hundredths of a percent.
const WHOLE: u32 = 10_000;

#[derive(Debug)]
struct SplitClients {
    source: Template,
    /// Hashes below the first number get the value; the last one may be `None`, for all that are left.
    parts: Vec<(Option<u32>, Box<[u8]>)>,
}

impl Compute for SplitClients {
    fn compute(&self, exchange: &mut Exchange, context: &mut Context, out: &mut Vec<u8>) -> bool {
        let hash = exchange.with_rendered(&self.source, context, |_, _, text| murmur_hash2(text));
        let part = self.parts.iter().find(|(below, _)| below.is_none_or(|below| hash < below));
        if let Some((_, value)) = part {
            out.extend_from_slice(value);
        }
        true
    }
}

fn set_split_clients(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    let source = scope.builder.template(call.arg(0))?;
    let word = call.arg(1);
    let Some(variable) = scope.builder.variable_name(word) else {
        return Err(Complaint::new(format!("invalid variable name \"{}\"", word.lossy())).at(word));
    };
    let mut sum = 0;
    let mut parts = Vec::new();
    for line in call.block() {
        match read_part(line, &mut sum) {
            Ok(part) => parts.push(part),
            Err(complaint) => scope.builder.diagnostics.push(complaint.into_diagnostic(line)),
        }
    }
    let split = Arc::new(SplitClients { source, parts });
    scope.builder.define_computed(variable, split, true).map_err(|complaint| complaint.at(word))
}

/// Reads `PERCENT% VALUE;` or `* VALUE;` and adds its share to `sum`.
fn read_part(line: &tree::Directive, sum: &mut u32) -> Result<(Option<u32>, Box<[u8]>), Complaint> {
    let [value] = line.args() else {
        return Err(Complaint::new("invalid number of the split_clients parameters"));
    };
    let name = line.name();
    let share = if name == "*" {
        None
    } else {
        let percent = name.as_bytes().strip_suffix(b"%").and_then(parse_hundredths);
        let invalid = || Complaint::new(format!("invalid percent value \"{}\"", name.lossy())).at(name);
        Some(percent.ok_or_else(invalid)?)
    };
    *sum = share.map_or(WHOLE, |share| sum.saturating_add(share));
    if *sum > WHOLE {
        return Err(Complaint::new("percent total is greater than 100%"));
    }
    // The bounds of nginx, so that the same clients are in the same groups.
    let below = share.map(|_| (u64::from(*sum) * u64::from(u32::MAX) / u64::from(WHOLE)) as u32);
    Ok((below, value.as_bytes().into()))
}

/// A positive decimal number with up to two digits behind the point, in hundredths.
fn parse_hundredths(text: &[u8]) -> Option<u32> {
    let mut value = 0u32;
    let mut decimals = None;
    for byte in text {
        match byte {
            b'.' if decimals.is_none() => decimals = Some(0),
            b'0'..=b'9' => {
                value = value.checked_mul(10)?.checked_add(u32::from(byte - b'0'))?;
                if let Some(count) = &mut decimals {
                    *count += 1;
                    if *count > 2 {
                        return None;
                    }
                }
            }
            _ => return None,
        }
    }
    let value = value.checked_mul([100, 10, 1][decimals.unwrap_or(0)])?;
    (value > 0).then_some(value)
}

/// MurmurHash2 (Austin Appleby's 32-bit one) with seed 0, which nginx uses here.
pub fn murmur_hash2(text: &[u8]) -> u32 {
    const MULTIPLIER: u32 = 0x5bd1_e995;
    let mut hash = text.len() as u32;
    let mut words = text.chunks_exact(4);
    for word in &mut words {
        let mut mixed = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(MULTIPLIER);
        mixed ^= mixed >> 24;
        hash = hash.wrapping_mul(MULTIPLIER) ^ mixed.wrapping_mul(MULTIPLIER);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::{World, complaints};

    #[test]
    fn every_text_falls_into_its_share() {
        let mut world = World::new(
            "split_clients $arg_a $b { 0.5% small; 49.50% half; * rest; } server { location / { return 200 $b; } }",
        );
        let mut counts = std::collections::HashMap::new();
        for number in 0..2000 {
            *counts.entry(world.get(&format!("/?a=client{number}")).text().to_owned()).or_insert(0) += 1;
        }
        assert!((900..1100).contains(&counts["rest"]), "{counts:?}");
        assert!((1..40).contains(&counts["small"]), "{counts:?}");
        assert_eq!(world.get("/?a=x").text(), world.get("/?a=x").text());
    }

    #[test]
    fn what_no_share_covers_is_empty() {
        let mut world =
            World::new("split_clients $uri $b { 0.01% x; } server { location / { return 200 [$b]; } }");
        assert_eq!(world.get("/").text(), "[]");
    }

    #[test]
    fn the_hash_is_murmur_hash_2() {
        assert_eq!(murmur_hash2(b""), 0);
        assert_eq!(murmur_hash2(b"a"), 0x9268_5f5e);
    }

    #[test]
    fn shares_are_read_as_in_nginx() {
        for (text, value) in [("50", Some(5000)), ("0.5", Some(50)), ("0.05", Some(5)), ("100", Some(10_000))] {
            assert_eq!(parse_hundredths(text.as_bytes()), value, "{text}");
        }
        for text in ["", "0", ".", "0.005", "1.2.3", "-1", "x", "99999999999"] {
            assert_eq!(parse_hundredths(text.as_bytes()), None, "{text}");
        }
        let told = |block: &str| complaints(&format!("split_clients $uri $b {{ {block} }}"));
        assert_eq!(told("50 x;"), ["[emerg] invalid percent value \"50\""]);
        assert_eq!(told("0% x;"), ["[emerg] invalid percent value \"0%\""]);
        assert_eq!(told("60% x; 50% y;"), ["[emerg] percent total is greater than 100%"]);
        assert_eq!(told("60% x y;"), ["[emerg] invalid number of the split_clients parameters"]);
        let told = complaints("split_clients $uri b { * x; }");
        assert_eq!(told, ["[emerg] invalid variable name \"b\""]);
    }
}
