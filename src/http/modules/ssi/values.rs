//! Values of parameters: variables and escapes in them, and conditions.

use crate::base::regex::Regex;
use crate::http::context::Context;
use crate::http::exchange::Exchange;

use super::page::Shared;
use super::scanner::shown;

/// The longest text that a value may come to, in bytes: values of values could double for ever.
const LONGEST_TEXT: usize = 256 << 10;

/// Appends the value of a variable, of commands first; `false` if it has none.
pub fn variable(
    page: &Shared,
    exchange: &mut Exchange,
    context: &mut Context,
    name: &[u8],
    out: &mut Vec<u8>,
) -> bool {
    let name = name.to_ascii_lowercase();
    if let Some(value) = page.borrow().variable(&name) {
        out.extend_from_slice(value);
        return true;
    }
    exchange.variable_named(&name, context, out)
}

/// The text of a value: `$name` and `${name}` are replaced, a backslash in front of `\`, `'`, `"` and `$` is dropped.
///
/// # Errors
/// A name is missing or not closed, or the text is too long.
pub fn evaluate(
    page: &Shared,
    exchange: &mut Exchange,
    context: &mut Context,
    text: &[u8],
) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, behind @ ..] = rest {
        rest = behind;
        match byte {
            b'\\' => {
                let Some((&escaped, behind)) = rest.split_first() else { break };
                if !matches!(escaped, b'\\' | b'\'' | b'"' | b'$') {
                    out.push(b'\\');
                }
                out.push(escaped);
                rest = behind;
            }
            b'$' => {
                let name;
                (name, rest) = split_name(rest, text)?;
                variable(page, exchange, context, name, &mut out);
            }
            _ => out.push(*byte),
        }
        if out.len() > LONGEST_TEXT {
            return Err(format!("\"{}\" comes to too long a text", shown(text)));
        }
    }
    Ok(out)
}

/// Takes a variable's name from what follows its `$`.
fn split_name<'a>(rest: &'a [u8], text: &[u8]) -> Result<(&'a [u8], &'a [u8]), String> {
    let (is_braced, body) = match rest.strip_prefix(b"{") {
        Some(body) => (true, body),
        None => (false, rest),
    };
    let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let length = body.iter().take_while(|byte| is_of_name(byte)).count();
    let (name, mut behind) = body.split_at(length);
    if is_braced {
        behind = behind.strip_prefix(b"}").ok_or_else(|| {
            format!("the closing bracket in \"{}\" variable is missing", shown(name))
        })?;
    }
    if name.is_empty() {
        return Err(format!("invalid variable name in \"{}\"", shown(text)));
    }
    Ok((name, behind))
}

/// Whether a condition holds: `text`, `text = text`, `text != text`, `text = /regex/`, `text != /regex/`. As in nginx
/// the left side is taken in lower case, and only a regular expression may begin with a slash.
///
/// # Errors
/// It is no condition.
pub fn holds(
    page: &Shared,
    exchange: &mut Exchange,
    context: &mut Context,
    text: &[u8],
) -> Result<bool, String> {
    let is_of_left = |byte: &u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'$' | b'{' | b'}' | b'_' | b'"' | b'\'')
    };
    let (left, rest) = text.split_at(text.iter().take_while(|byte| is_of_left(byte)).count());
    let left = left.to_ascii_lowercase();
    let invalid = || format!("invalid expression in \"{}{}\"", shown(&left), shown(rest));
    let behind = without_spaces(rest);
    let (is_negated, right) = match behind {
        [] => (false, None),
        [b'=', right @ ..] => (false, Some(without_spaces(right))),
        [b'!', b'=', right @ ..] => (true, Some(without_spaces(right))),
        _ => return Err(invalid()),
    };
    let value = evaluate(page, exchange, context, &left)?;
    let is_equal = match right {
        None => !value.is_empty(),
        Some([b'/', pattern @ .., b'/']) => {
            let rendered = evaluate(page, exchange, context, pattern)?;
            // What a client sends must not lift the bound of a match.
            if rendered.starts_with(b"(*") && !pattern.starts_with(b"(*") {
                return Err(invalid());
            }
            let regex = Regex::new(&rendered, false).map_err(|error| error.nginx_text(&rendered))?;
            page.borrow_mut().matches(&regex, &value)?
        }
        Some([b'/', _, ..]) => return Err(invalid()),
        Some(right) => {
            // A text that is no regular expression begins with a slash behind a backslash.
            let right = if right.starts_with(b"\\/") { &right[1..] } else { right };
            evaluate(page, exchange, context, right)? == value
        }
    };
    Ok(is_equal != is_negated)
}

fn without_spaces(text: &[u8]) -> &[u8] {
    let spaces = text.iter().take_while(|byte| **byte == b' ').count();
    &text[spaces..]
}
