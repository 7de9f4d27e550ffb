//! Readers of directive arguments, for the tables of the modules.

use crate::conf::directive::{Call, Complaint};
use crate::conf::template::Template;
use crate::conf::tree::Word;
use crate::conf::values;

use super::Scope;

/// `on` or `off` (checked by the arity already).
pub fn flag(_: &mut Scope, call: &Call) -> Result<bool, Complaint> {
    Ok(call.arg(0).as_bytes().eq_ignore_ascii_case(b"on"))
}

/// A size that fits memory: `4k`, `1m`.
pub fn size(_: &mut Scope, call: &Call) -> Result<u64, Complaint> {
    values::parse_size(call.arg(0).as_bytes()).map_err(|_| invalid_value(call, call.arg(0)))
}

/// A size of a file or body: `4k`, `1m`, `2g`.
pub fn offset(_: &mut Scope, call: &Call) -> Result<u64, Complaint> {
    values::parse_offset(call.arg(0).as_bytes()).map_err(|_| invalid_value(call, call.arg(0)))
}

/// A time in milliseconds.
pub fn milliseconds(_: &mut Scope, call: &Call) -> Result<u64, Complaint> {
    values::parse_time_ms(call.arg(0).as_bytes()).map_err(|_| invalid_value(call, call.arg(0)))
}

/// A time in seconds.
pub fn seconds(_: &mut Scope, call: &Call) -> Result<u64, Complaint> {
    values::parse_time_s(call.arg(0).as_bytes()).map_err(|_| invalid_value(call, call.arg(0)))
}

/// A whole number.
pub fn number(_: &mut Scope, call: &Call) -> Result<u64, Complaint> {
    values::parse_number(call.arg(0).as_bytes())
        .map_err(|_| Complaint::new(values::invalid_number(call.name())).at(call.arg(0)))
}

/// Text with variables.
pub fn template(scope: &mut Scope, call: &Call) -> Result<Template, Complaint> {
    scope.builder.template(call.arg(0))
}

/// Several texts with variables.
pub fn templates(scope: &mut Scope, call: &Call) -> Result<Vec<Template>, Complaint> {
    call.args().iter().map(|word| scope.builder.template(word)).collect()
}

/// nginx's `"x" directive invalid value`.
pub fn invalid_value(call: &Call, word: &Word) -> Complaint {
    Complaint::new(values::invalid_value(call.name())).at(word)
}

/// Accepts a directive that has no meaning here; all such are named in one info line.
pub fn without_meaning(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    let names = &mut scope.builder.without_meaning;
    if !names.iter().any(|name| **name == *call.name()) {
        names.push(call.name().into());
    }
    Ok(())
}

/// The same for one whose value is a whole number.
pub fn number_without_meaning(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    number(scope, call)?;
    without_meaning(scope, call)
}

/// The same for one whose value is a size.
pub fn size_without_meaning(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    size(scope, call)?;
    without_meaning(scope, call)
}

/// The same for one whose value is a time.
pub fn time_without_meaning(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    milliseconds(scope, call)?;
    without_meaning(scope, call)
}

/// One of several words.
pub fn one_of<T: Copy>(call: &Call, choices: &[(&str, T)]) -> Result<T, Complaint> {
    let word = call.arg(0);
    choices
        .iter()
        .find(|(name, _)| word.as_bytes() == name.as_bytes())
        .map(|(_, value)| *value)
        .ok_or_else(|| Complaint::invalid_value(word))
}
