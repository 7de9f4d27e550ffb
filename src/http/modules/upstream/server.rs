//! `server` in an `upstream` block.

use std::net::{IpAddr, SocketAddr};

use crate::conf::directive::{Call, Complaint};
use crate::conf::tree::Word;
use crate::conf::values;
use crate::http::build::Scope;
use crate::http::modules::passing::parse_address;
use crate::http::upstream_call::PassAddress;
use crate::proto::dns::DnsName;
use crate::upstream::plan::{Method, PeerPlan, PlanAddress};

use super::block;

/// Port of a server without one.
const PORT: u16 = 80;
/// Longest `route=`, in bytes (nginx).
const LONGEST_ROUTE: usize = 32;

/// Adds a server to the group.
pub fn set(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    let draft = block(scope, call)?;
    let method = draft.plan.method;
    let peer = peer(call, method)?;
    draft.plan.peers.push(peer);
    Ok(())
}

fn peer(call: &Call, method: Method) -> Result<PeerPlan, Complaint> {
    let word = call.arg(0);
    let mut parameters = Parameters::default();
    // The address is looked at last, as in nginx.
    let mut plan = PeerPlan::new(word.lossy(), PlanAddress::Inet(Vec::new()));
    for parameter in &call.args()[1..] {
        parameters.read(&mut plan, method, parameter)?;
    }
    plan.address = address(word, &parameters)?;
    Ok(plan)
}

#[derive(Default)]
struct Parameters {
    resolve: bool,
    service: Option<Box<str>>,
}

impl Parameters {
    fn read(&mut self, plan: &mut PeerPlan, method: Method, word: &Word) -> Result<(), Complaint> {
        let invalid = || Complaint::invalid_parameter(word);
        let unsupported = || {
            let message = format!("balancing method does not support parameter \"{}\"", word.lossy());
            Complaint::new(message).at(word)
        };
        let text = word.as_str().ok_or_else(invalid)?;
        let number = |value: &str| {
            let number = values::parse_number(value.as_bytes()).ok();
            number.and_then(|number| u32::try_from(number).ok()).ok_or_else(invalid)
        };
        let time_ms = |value: &str| {
            let seconds = values::parse_time_s(value.as_bytes()).map_err(|_| invalid())?;
            Ok(seconds.saturating_mul(1000))
        };
        let by_chance = matches!(method, Method::Random(_));
        match text.split_once('=') {
            Some(("weight", value)) => {
                plan.weight = number(value)?;
                if plan.weight == 0 {
                    return Err(invalid());
                }
            }
            Some(("max_conns", value)) => plan.max_conns = number(value)?,
            Some(("max_fails", value)) => plan.max_fails = number(value)?,
            Some(("fail_timeout", value)) => plan.fail_timeout_ms = time_ms(value)?,
            Some(("slow_start", _)) if method.has_affinity() || by_chance => return Err(unsupported()),
            Some(("slow_start", value)) => plan.slow_start_ms = time_ms(value)?,
            Some(("route", value)) if (1..=LONGEST_ROUTE).contains(&value.len()) => {
                plan.route = Some(value.into());
            }
            Some(("service", value)) if !value.is_empty() => self.service = Some(value.into()),
            None => match text {
                "backup" if method.has_affinity() || by_chance => return Err(unsupported()),
                "backup" => plan.backup = true,
                "down" => plan.down = true,
                "drain" => plan.drain = true,
                "resolve" => self.resolve = true,
                _ => return Err(invalid()),
            },
            _ => return Err(invalid()),
        }
        Ok(())
    }
}

fn address(word: &Word, parameters: &Parameters) -> Result<PlanAddress, Complaint> {
    let refuse = |what: &str| Complaint::new(format!("{what} in upstream \"{}\"", word.lossy())).at(word);
    let of_service = |what: &str| {
        Complaint::new(format!("service upstream \"{}\" {what}", word.lossy())).at(word)
    };
    let (host, port) = match parse_address(word.as_bytes(), PORT, false).map_err(refuse)?.address {
        PassAddress::Unix(_) if parameters.service.is_some() => return Err(of_service("requires domain name")),
        PassAddress::Unix(path) => return Ok(PlanAddress::Unix(path)),
        PassAddress::Host { host, port, .. } => (host, port),
    };
    let host = std::str::from_utf8(&host).map_err(|_| refuse("invalid host"))?;
    if parameters.service.is_some() {
        if !parameters.resolve {
            return Err(of_service("requires \"resolve\" parameter"));
        }
        if port.is_some() {
            return Err(of_service("may not have port"));
        }
    }
    let port = port.unwrap_or(PORT);
    if let Ok(address) = host.parse::<IpAddr>() {
        return match parameters.service {
            Some(_) => Err(of_service("requires domain name")),
            None => Ok(PlanAddress::Inet(vec![SocketAddr::new(address, port)])),
        };
    }
    DnsName::parse(host.as_bytes()).map_err(|_| refuse("host not found"))?;
    Ok(PlanAddress::Name {
        host: host.into(),
        port,
        resolve: parameters.resolve,
        service: parameters.service.clone(),
    })
}
