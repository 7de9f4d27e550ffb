//! `allow` and `deny`, and the access phase: who may.

use std::sync::Arc;

use crate::base::cidr::{AddressList, Cidr, PeerAddress};
use crate::base::level::Level;
use crate::conf::context as places;
use crate::conf::directive::{Arity, Call, Complaint};
use crate::conf::source::{IncludeId, Span};
use crate::http::build::Scope;
use crate::http::build::arguments::milliseconds;
use crate::http::context::Context;
use crate::http::exchange::{Endpoint, Exchange};
use crate::http::flow::{Answer, Flow, Need};
use crate::http::modules::{auth_basic, auth_request, forward_auth};
use crate::http::modules::core::Satisfy;
use crate::http::settings::contexts::HTTP_SERVER_LOCATION;
use crate::http::settings::settings;
use crate::message::Status;

const RULED: places::Context = HTTP_SERVER_LOCATION.union(places::Context::LIMIT_EXCEPT);

settings! {
    module access;
    fields {
        /// Lets clients with these addresses pass.
        rules: Rules = Rules::default(), inherit;
            "allow" RULED, Arity::exactly(1), default "", with set_allow;
        /// How long a refusal for want of a password waits, in milliseconds.
        auth_delay: u64 = 0, inherit;
            "auth_delay" HTTP_SERVER_LOCATION, Arity::exactly(1), default "0s", once milliseconds;
    }
    also {
        /// Refuses clients with these addresses.
        "deny" for rules: Rules, RULED, Arity::exactly(1), default "", with set_deny;
    }
}

/// The rules of one scope; the first that fits decides.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// `true` to let pass.
    list: Arc<AddressList<bool>>,
    /// The first `allow`, and whether any rule refuses.
    first_allow: Option<(Span, IncludeId)>,
    denies: bool,
}

impl Rules {
    /// Where a list stands that lets some pass and yet refuses nobody.
    pub fn pointless_allow(&self) -> Option<(Span, IncludeId)> {
        if self.denies { None } else { self.first_allow }
    }
}

/// What `-t` says of such a list.
pub const POINTLESS_ALLOW: &str =
    "\"allow\" without any \"deny\" refuses nobody: what no rule names is let pass";

fn set_allow(scope: &mut Scope, call: &Call, slot: &mut Option<Rules>) -> Result<(), Complaint> {
    let rules = add_rule(scope, call, slot, true)?;
    rules.first_allow.get_or_insert((call.span(), call.directive.include));
    Ok(())
}

fn set_deny(scope: &mut Scope, call: &Call, slot: &mut Option<Rules>) -> Result<(), Complaint> {
    add_rule(scope, call, slot, false)?.denies = true;
    Ok(())
}

fn add_rule<'a>(
    scope: &mut Scope,
    call: &Call,
    slot: &'a mut Option<Rules>,
    allows: bool,
) -> Result<&'a mut Rules, Complaint> {
    let word = call.arg(0);
    let parsed = word.as_str().and_then(Cidr::parse).ok_or_else(|| Complaint::invalid_parameter(word))?;
    if parsed.low_bits_are_meaningless {
        scope.warn(call, format!("low address bits of {} are meaningless", word.lossy()));
    }
    let rules = slot.get_or_insert_default();
    Arc::make_mut(&mut rules.list).push(parsed.cidr, allows);
    Ok(rules)
}

/// What one rule of the access phase says.
pub enum Verdict {
    /// It has nothing to say here.
    Abstain,
    /// Let it pass.
    Allow,
    /// Refuse it by the client's address, unless `satisfy any` and another rule lets it pass.
    Forbid,
    /// The same with this status.
    Refuse(Status),
    /// The response is there already: send it.
    Answer,
    /// It has to know something first; it is asked again with the answer.
    Need(Need),
}

/// A rule: called with `None` first, then with the answer to each need that it named.
type Check = fn(&mut Exchange, &mut Context, Option<Answer>) -> Verdict;

/// The rules of the access phase, in order: the cheapest first, those that ask the client for something last.
const CHECKS: &[Check] = &[by_address, auth_basic::by_password, auth_request::by_subrequest, forward_auth::by_service];

/// Where the access phase stands.
#[derive(Clone, Copy, Debug, Default)]
pub struct Running {
    /// The rule that is asked next.
    check: u8,
    /// What the rules so far refuse with (`satisfy any`), or all of them (`auth_delay`).
    refusal: Option<Status>,
    /// Whether the refusal waits for its time.
    is_delayed: bool,
}

/// Asks all of them (`satisfy all`), or as many as it takes until one lets the request pass (`satisfy any`).
pub fn handle(exchange: &mut Exchange, context: &mut Context, mut answer: Option<Answer>) -> Flow {
    if exchange.notes.access.is_delayed {
        return end(exchange);
    }
    let any = exchange.scope(context).settings.core.satisfy == Satisfy::Any;
    while let Some(check) = CHECKS.get(usize::from(exchange.notes.access.check)) {
        let verdict = check(exchange, context, answer.take());
        let refusal = match verdict {
            Verdict::Need(need) => return Flow::Need(need),
            Verdict::Answer => {
                exchange.notes.access = Running::default();
                return Flow::Respond;
            }
            Verdict::Abstain => None,
            Verdict::Allow if any => {
                // Rules before this one may have asked for a password.
                exchange.response.fields.remove(b"WWW-Authenticate");
                exchange.response.fields.remove(b"Proxy-Authenticate");
                exchange.notes.access = Running::default();
                return Flow::Next;
            }
            Verdict::Allow => None,
            Verdict::Forbid => {
                if !any {
                    log_forbidden(exchange, context);
                }
                Some(Status::FORBIDDEN)
            }
            Verdict::Refuse(status) => Some(status),
        };
        let running = &mut exchange.notes.access;
        running.check += 1;
        // A client that may prove itself is told so, whatever else was said.
        if refusal.is_some() && !running.refusal.is_some_and(asks_for_password) {
            running.refusal = refusal;
        }
        if refusal.is_some() && !any {
            break;
        }
    }
    let Some(status) = exchange.notes.access.refusal else { return end(exchange) };
    if any && status == Status::FORBIDDEN {
        log_forbidden(exchange, context);
    }
    let delay_ms = exchange.scope(context).settings.access.auth_delay;
    if delay_ms > 0 && asks_for_password(status) {
        exchange.log(context, Level::Info, format_args!("delaying unauthorized request"));
        exchange.notes.access.is_delayed = true;
        return Flow::Need(Need::Delay(delay_ms));
    }
    end(exchange)
}

/// Leaves the phase with what was decided; it begins anew after an internal redirect.
fn end(exchange: &mut Exchange) -> Flow {
    match std::mem::take(&mut exchange.notes.access).refusal {
        None => Flow::Next,
        Some(status) => Flow::Status(status),
    }
}

fn asks_for_password(status: Status) -> bool {
    matches!(status, Status::UNAUTHORIZED | Status::PROXY_AUTHENTICATION_REQUIRED)
}

fn log_forbidden(exchange: &mut Exchange, context: &mut Context) {
    exchange.log(context, Level::Error, format_args!("access forbidden by rule"));
}

fn by_address(exchange: &mut Exchange, context: &mut Context, _: Option<Answer>) -> Verdict {
    let rules = &exchange.scope(context).settings.access.rules.list;
    if rules.is_empty() {
        return Verdict::Abstain;
    }
    let peer = match &exchange.connection.peer {
        Endpoint::Inet(address) => PeerAddress::Ip(address.ip()),
        Endpoint::Unix(_) => PeerAddress::Unix,
    };
    match rules.find(peer) {
        None => Verdict::Abstain,
        Some(true) => Verdict::Allow,
        Some(false) => Verdict::Forbid,
    }
}

#[cfg(test)]
mod tests {
    use crate::http::exchange::Endpoint;
    use crate::http::testing::{World, complaints};

    fn status_for(rules: &str, peer: &str) -> u16 {
        let http = format!("server {{ location / {{ {rules} root /srv; }} }}");
        let mut world = World::new(&http).file("/srv/f", "f");
        world.peer = match peer {
            "unix:" => Endpoint::Unix(Box::default()),
            address => Endpoint::Inet(address.parse().expect("an address")),
        };
        world.get("/f").status
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let rules = "deny 10.0.0.1; allow 10.0.0.0/8; allow 2001:db8::/32; deny all;";
        for (peer, status) in [
            ("10.0.0.1:1", 403),
            ("10.0.0.2:1", 200),
            ("192.0.2.1:1", 403),
            ("[2001:db8::1]:1", 200),
            ("[2001:db9::1]:1", 403),
            ("[::ffff:10.0.0.2]:1", 200),
            ("unix:", 403),
        ] {
            assert_eq!(status_for(rules, peer), status, "{peer}");
        }
    }

    #[test]
    fn who_is_named_by_no_rule_passes() {
        assert_eq!(status_for("deny 10.0.0.1;", "10.0.0.2:1"), 200);
        assert_eq!(status_for("allow unix:; deny all;", "unix:"), 200);
        assert_eq!(status_for("deny unix:;", "unix:"), 403);
    }

    #[test]
    fn one_refusal_is_enough_for_satisfy_any_if_nothing_allows() {
        assert_eq!(status_for("satisfy any; deny all;", "10.0.0.1:1"), 403);
        assert_eq!(status_for("satisfy any; allow 10.0.0.1; deny all;", "10.0.0.1:1"), 200);
    }

    #[test]
    fn a_refusal_is_logged() {
        let reply = World::new("server { location / { deny all; } }").get("/");
        assert_eq!(reply.status, 403);
        assert!(reply.log[0].starts_with("[error] access forbidden by rule"), "{:?}", reply.log);
    }

    #[test]
    fn rules_are_inherited_whole_or_not_at_all() {
        let mut world = World::new("server { root /srv; deny all; location /a { allow 192.0.2.1; } location /b { } }")
            .file("/srv/a", "a")
            .file("/srv/b", "b");
        assert_eq!(world.get("/a").status, 200);
        assert_eq!(world.get("/b").status, 403);
    }

    #[test]
    fn methods_that_limit_except_does_not_spare_have_rules_of_their_own() {
        let mut world = World::new("server { location / { root /srv; limit_except GET { deny all; } } }").file("/srv/f", "f");
        assert_eq!(world.get("/f").status, 200);
        assert_eq!(world.send("HEAD /f HTTP/1.0\r\n\r\n").status, 200);
        assert_eq!(world.send("POST /f HTTP/1.0\r\n\r\n").status, 403);
    }

    #[test]
    fn doubtful_rules_are_warned_of() {
        let told = complaints("server { allow 10.0.0.1; }");
        assert!(told[0].starts_with("[warn] \"allow\" without any \"deny\""), "{told:?}");
        assert_eq!(complaints("server { allow 10.0.0.1; deny all; }"), [""; 0]);
        let told = complaints("server { deny 1.2.3.4/8; }");
        assert_eq!(told, ["[warn] low address bits of 1.2.3.4/8 are meaningless"]);
        assert_eq!(complaints("server { deny foo; }"), ["[emerg] invalid parameter \"foo\""]);
    }
}
