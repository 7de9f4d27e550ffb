//! `resolver` and `resolver_timeout`: which DNS servers are asked for the names of upstreams. Without them it is the
//! system's resolver.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use crate::conf::context::Context;
use crate::conf::directive::{Arity, Call, Complaint};
use crate::conf::tree::Word;
use crate::conf::values;
use crate::http::build::Scope;
use crate::http::build::arguments::invalid_value;
use crate::http::settings::contexts::HTTP_SERVER_LOCATION;
use crate::http::settings::settings;
use crate::proto::dns::DnsName;
use crate::upstream::names::{ResolverPlan, ResolverServer};

/// `resolver_timeout` where none is set, in milliseconds.
pub const DEFAULT_TIMEOUT_MS: u64 = 30_000;
/// What `resolver_timeout 0` comes to, in milliseconds: nginx waits without a limit then.
const LONGEST_TIMEOUT_MS: u64 = 300_000;
/// Port of DNS servers.
const DNS_PORT: u16 = 53;
/// Most servers of one directive. The system's resolver has 3 at most.
const MAX_SERVERS: usize = 64;

/// An `upstream` block may have resolvers of its own.
const CONTEXTS: Context = HTTP_SERVER_LOCATION.union(Context::UPSTREAM);

settings! {
    module resolver;
    merge freeze_plan;
    values {
        /// What the two directives come to: the resolver for this scope, `None` for the system's.
        plan: Option<Arc<ResolverPlan>> = None, inherit;
    }
    fields {
        /// DNS servers for the names of upstreams.
        servers: Option<ResolverPlan> = None, inherit;
            "resolver" CONTEXTS, Arity::at_least(1), default "", once set_servers;
        /// How long a name is asked for.
        timeout: u64 = DEFAULT_TIMEOUT_MS, inherit;
            "resolver_timeout" CONTEXTS, Arity::exactly(1), default "30s", once set_timeout;
    }
}

fn set_servers(_: &mut Scope, call: &Call) -> Result<Option<ResolverPlan>, Complaint> {
    resolver_arguments(call).map(Some)
}

fn set_timeout(_: &mut Scope, call: &Call) -> Result<u64, Complaint> {
    resolver_timeout_argument(call)
}

impl Draft {
    /// The resolver that a block has by itself, whatever is around it.
    pub fn own_plan(mut self) -> Option<Arc<ResolverPlan>> {
        freeze_plan(&mut self, &Draft::default());
        self.plan.flatten()
    }
}

fn freeze_plan(own: &mut Draft, _around: &Draft) {
    if let Some(Some(servers)) = &own.servers {
        let timeout_ms = own.timeout.unwrap_or(DEFAULT_TIMEOUT_MS);
        own.plan = Some(Some(Arc::new(ResolverPlan { timeout_ms, ..servers.clone() })));
    }
}

/// Reads the arguments of a `resolver` directive, wherever it stands; the timeout is the default one.
///
/// # Errors
/// nginx's messages, for the first argument that is wrong.
pub fn resolver_arguments(call: &Call) -> Result<ResolverPlan, Complaint> {
    let mut plan = ResolverPlan {
        servers: Vec::new(),
        valid_ms: None,
        ipv4: true,
        ipv6: true,
        timeout_ms: DEFAULT_TIMEOUT_MS,
        status_zone: None,
    };
    for word in call.args() {
        match word.as_str().and_then(|text| text.split_once('=')) {
            Some((name, value)) => set_parameter(&mut plan, name, value, word)?,
            None => plan.servers.push(server(word)?),
        }
    }
    if plan.servers.is_empty() {
        return Err(Complaint::new("no name servers defined"));
    }
    if plan.servers.len() > MAX_SERVERS {
        return Err(Complaint::new(format!("more than {MAX_SERVERS} name servers")));
    }
    if !plan.ipv4 && !plan.ipv6 {
        return Err(Complaint::new("\"ipv4\" and \"ipv6\" cannot both be \"off\""));
    }
    Ok(plan)
}

/// Reads the argument of a `resolver_timeout` directive, wherever it stands: milliseconds.
///
/// # Errors
/// nginx's message for what is no time.
pub fn resolver_timeout_argument(call: &Call) -> Result<u64, Complaint> {
    match values::parse_time_ms(call.arg(0).as_bytes()) {
        Ok(0) => Ok(LONGEST_TIMEOUT_MS),
        Ok(timeout_ms) => Ok(timeout_ms),
        Err(_) => Err(invalid_value(call, call.arg(0))),
    }
}

fn set_parameter(plan: &mut ResolverPlan, name: &str, value: &str, word: &Word) -> Result<(), Complaint> {
    // nginx's words, which are others here than elsewhere.
    let invalid = || Complaint::new(format!("invalid parameter: {}", word.lossy())).at(word);
    match name {
        "valid" => {
            let seconds = values::parse_time_s(value.as_bytes()).map_err(|_| invalid())?;
            plan.valid_ms = (seconds > 0).then(|| seconds.saturating_mul(1000));
        }
        "ipv4" => plan.ipv4 = values::parse_flag(value.as_bytes()).map_err(|_| invalid())?,
        "ipv6" => plan.ipv6 = values::parse_flag(value.as_bytes()).map_err(|_| invalid())?,
        "status_zone" if !value.is_empty() => plan.status_zone = Some(value.into()),
        _ => return Err(invalid()),
    }
    Ok(())
}

fn server(word: &Word) -> Result<ResolverServer, Complaint> {
    let refuse = |what: &str| Complaint::new(format!("{what} in resolver \"{}\"", word.lossy())).at(word);
    let text = word.as_str().ok_or_else(|| refuse("invalid host"))?;
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let port = text.parse::<u16>().ok().filter(|port| is_number && *port != 0);
        port.ok_or_else(|| refuse("invalid port"))
    };
    if let Some(rest) = text.strip_prefix('[') {
        let (inner, rest) = rest.split_once(']').ok_or_else(|| refuse("invalid host"))?;
        let address: Ipv6Addr = inner.parse().map_err(|_| refuse("invalid IPv6 address"))?;
        let port = match rest.strip_prefix(':') {
            Some(port) => number(port)?,
            None if rest.is_empty() => DNS_PORT,
            None => return Err(refuse("invalid host")),
        };
        return Ok(ResolverServer::Address(SocketAddr::new(IpAddr::V6(address), port)));
    }
    if text.contains('/') {
        return Err(refuse("invalid host"));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, number(port)?),
        None => (text, DNS_PORT),
    };
    if host.is_empty() {
        return Err(refuse("no host"));
    }
    match host.parse::<Ipv4Addr>() {
        Ok(address) => Ok(ResolverServer::Address(SocketAddr::new(IpAddr::V4(address), port))),
        // A name is looked up when it is needed: a configuration does not fail for the want of one.
        Err(_) => match DnsName::parse(host.as_bytes()) {
            Ok(name) => Ok(ResolverServer::Name { host: name.as_str().into(), port }),
            Err(_) => Err(refuse("host not found")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::site::{Site, LocationId};
    use crate::conf::files::MemoryFiles;
    use crate::http::testing::{build_whole, complaints};

    fn site(http: &str) -> Site {
        build_whole(format!("events {{}} http {{ {http} }}").into_bytes(), MemoryFiles::default())
            .site
            .expect("a site")
    }

    fn plan(site: &Site, location: usize) -> Option<ResolverPlan> {
        site.settings(LocationId(location as u32)).resolver.plan.as_deref().cloned()
    }

    fn only_plan(arguments: &str) -> ResolverPlan {
        plan(&site(&format!("resolver {arguments}; server {{ }}")), 0).expect("a plan")
    }

    #[test]
    fn every_argument_has_its_place_in_the_plan() {
        let plan = only_plan("127.0.0.1 [::1]:5353 valid=5m ipv4=off ns.test:54 status_zone=dns ipv6=on 192.0.2.1:1");
        let address = |text: &str| ResolverServer::Address(text.parse().expect("an address"));
        let named = ResolverServer::Name { host: "ns.test".into(), port: 54 };
        assert_eq!(
            plan,
            ResolverPlan {
                servers: vec![address("127.0.0.1:53"), address("[::1]:5353"), named, address("192.0.2.1:1")],
                valid_ms: Some(300_000),
                ipv4: false,
                ipv6: true,
                timeout_ms: 30_000,
                status_zone: Some("dns".into()),
            }
        );
        assert_eq!(only_plan("127.0.0.1 valid=0").valid_ms, None);
    }

    #[test]
    fn both_directives_are_inherited_each_by_itself() {
        let site = site(
            "resolver 192.0.2.1; resolver_timeout 7s;
            server { location /a { resolver 192.0.2.2; } location /b { resolver_timeout 3s; } location /c { } }
            server { resolver 192.0.2.3; resolver_timeout 0; }",
        );
        let seen: Vec<(String, u64)> = (0..site.locations.len())
            .map(|location| plan(&site, location).expect("a plan"))
            .map(|plan| (format!("{:?}", plan.servers), plan.timeout_ms))
            .collect();
        let expect = |last: u8, timeout_ms: u64| (format!("[Address(192.0.2.{last}:53)]"), timeout_ms);
        for wanted in [expect(1, 7000), expect(2, 7000), expect(1, 3000), expect(3, 300_000)] {
            assert!(seen.contains(&wanted), "{wanted:?} in {seen:?}");
        }
        assert_eq!(seen.len(), 5);
        // A scope that says nothing shares what is around it.
        let shared = |location: u32| site.settings(LocationId(location)).resolver.clone();
        let around = shared(0);
        let same = (1..5).filter(|location| Arc::ptr_eq(&shared(*location), &around)).count();
        assert_eq!(same, 1);
    }

    #[test]
    fn without_a_resolver_there_is_no_plan() {
        assert_eq!(plan(&site("resolver_timeout 5s; server { }"), 0), None);
    }

    #[test]
    fn what_is_wrong_is_said_in_nginx_s_words() {
        for (text, complaint) in [
            ("resolver valid=5s;", "no name servers defined"),
            ("resolver 127.0.0.1 valid=x;", "invalid parameter: valid=x"),
            ("resolver 127.0.0.1 valid=500ms;", "invalid parameter: valid=500ms"),
            ("resolver 127.0.0.1 ipv6=maybe;", "invalid parameter: ipv6=maybe"),
            ("resolver 127.0.0.1 foo=bar;", "invalid parameter: foo=bar"),
            ("resolver 127.0.0.1 ipv4=off ipv6=off;", "\"ipv4\" and \"ipv6\" cannot both be \"off\""),
            ("resolver 127.0.0.1:0;", "invalid port in resolver \"127.0.0.1:0\""),
            ("resolver 127.0.0.1:99999;", "invalid port in resolver \"127.0.0.1:99999\""),
            ("resolver ::1;", "invalid port in resolver \"::1\""),
            ("resolver \"\";", "no host in resolver \"\""),
            ("resolver a/b;", "invalid host in resolver \"a/b\""),
            ("resolver $x;", "host not found in resolver \"$x\""),
            ("resolver 127.0.0.1; resolver 127.0.0.2;", "\"resolver\" directive is duplicate"),
            ("resolver_timeout x;", "\"resolver_timeout\" directive invalid value"),
        ] {
            assert_eq!(complaints(text), [format!("[emerg] {complaint}")], "{text}");
        }
    }
}
