//! Directives that choose how a group's servers are asked.

use crate::conf::directive::{Call, Complaint};
use crate::conf::tree::Word;
use crate::http::build::Scope;
use crate::upstream::plan::{LeastTime, Method, OfTwo};

use super::block;

/// Sets the method; a second one in a block takes the place of the first, with nginx's warning.
fn set(scope: &mut Scope, call: &Call, method: Method) -> Result<(), Complaint> {
    let draft = block(scope, call)?;
    draft.plan.method = method;
    if std::mem::replace(&mut draft.has_method, true) {
        scope.warn(call, "load balancing method redefined");
    }
    Ok(())
}

/// `least_conn`
pub fn least_conn(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    set(scope, call, Method::LeastConn)
}

/// `ip_hash`
pub fn ip_hash(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    set(scope, call, Method::IpHash)
}

/// `least_time header|last_byte [inflight]`
pub fn least_time(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    let whole = which_time(call.arg(0), call.arg(0).as_bytes())?;
    let inflight = match call.args().get(1) {
        None => false,
        Some(word) if *word == "inflight" => true,
        Some(word) => return Err(Complaint::invalid_parameter(word)),
    };
    set(scope, call, Method::LeastTime(LeastTime { whole, inflight }))
}

fn which_time(word: &Word, text: &[u8]) -> Result<bool, Complaint> {
    match text {
        b"header" => Ok(false),
        b"last_byte" => Ok(true),
        _ => Err(Complaint::invalid_parameter(word)),
    }
}

/// `hash KEY [consistent]`
pub fn hash(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    let key = scope.builder.template(call.arg(0))?;
    let consistent = match call.args().get(1) {
        None => false,
        Some(word) if *word == "consistent" => true,
        Some(word) => return Err(Complaint::invalid_parameter(word)),
    };
    block(scope, call)?.settings.hash_key = Some(key);
    set(scope, call, Method::Hash { consistent })
}

/// `random [two [METHOD]]`
pub fn random(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    let of_two = match call.args() {
        [] => None,
        [two, ..] if *two != "two" => return Err(Complaint::invalid_parameter(two)),
        [_] => Some(OfTwo::LeastConn),
        [_, word, ..] => Some(match word.as_bytes() {
            b"least_conn" => OfTwo::LeastConn,
            text => match text.strip_prefix(b"least_time=") {
                Some(time) => {
                    OfTwo::LeastTime(LeastTime { whole: which_time(word, time)?, inflight: false })
                }
                None => return Err(Complaint::invalid_parameter(word)),
            },
        }),
    };
    set(scope, call, Method::Random(of_two))
}
