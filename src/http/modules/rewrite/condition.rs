//! Conditions of `if`.

use crate::base::level::Level;
use crate::conf::directive::Complaint;
use crate::conf::template::{Template, VariableId};
use crate::conf::tree::Word;
use crate::http::build::{Scope, SiteRegex};
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::file::{FailureReason, FileAnswer, FileKind, Want};
use crate::http::flow::{Answer, Need};
use crate::http::matching;
use crate::http::variables::is_true;
use crate::message::Status;

use super::run::render_value;

/// What an `if` asks.
#[derive(Clone, Debug)]
pub enum Condition {
    /// `($a)`: neither empty nor `0`.
    True(VariableId),
    /// `($a = b)`, `($a != b)`
    Equals {
        /// The left side.
        variable: VariableId,
        /// The right side.
        value: Template,
        /// `!=`
        negated: bool,
    },
    /// `($a ~ b)`, `($a !~* b)` and so on.
    Matches {
        /// What is matched.
        variable: VariableId,
        /// The expression.
        regex: SiteRegex,
        /// `!~`, `!~*`
        negated: bool,
    },
    /// `(-f path)` and so on.
    File {
        /// What of the file.
        test: FileTest,
        /// `!-f`
        negated: bool,
        /// Which file.
        path: Template,
    },
}

/// What a condition asks of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileTest {
    /// `-f`: a regular file.
    File,
    /// `-d`: a folder.
    Directory,
    /// `-e`: a regular file or a folder (nginx follows links and counts nothing else).
    Exists,
    /// `-x`: whatever its owner may execute.
    Executable,
}

/// Whether a condition holds, or what must be known first.
pub enum Outcome {
    /// It is known.
    Known(bool),
    /// The file must be looked at.
    Need(Need),
    /// The request can't go on.
    Refused(Status),
}

impl Condition {
    /// Reads the arguments of `if`, parentheses included. Errors are nginx's.
    pub fn parse(scope: &mut Scope, args: &[Word]) -> Result<Condition, Complaint> {
        let invalid =
            |word: &Word, text: &[u8]| condition_complaint("invalid condition", word, text).at(word);
        let words = inner_words(args)?;
        let Some((first, rest)) = words.split_first() else {
            let word = &args[args.len() - 1];
            return Err(invalid(word, word.as_bytes()));
        };
        match (first.text, rest) {
            ([b'$', name @ ..], rest) if !name.is_empty() => {
                let name = String::from_utf8_lossy(name).into_owned();
                let variable = scope.builder.variable(&name, first.word);
                match rest {
                    [] => Ok(Condition::True(variable)),
                    [operator, value] => comparison(scope, variable, operator, value),
                    _ => Err(invalid(first.word, first.text)),
                }
            }
            ([b'-', _] | [b'!', b'-', _], [path]) => {
                let negated = first.text[0] == b'!';
                let test = match first.text[first.text.len() - 1] {
                    b'f' => FileTest::File,
                    b'd' => FileTest::Directory,
                    b'e' => FileTest::Exists,
                    b'x' => FileTest::Executable,
                    _ => return Err(invalid(first.word, first.text)),
                };
                let path = scope.builder.template_of(path.text, path.word)?;
                Ok(Condition::File { test, negated, path })
            }
            _ => Err(invalid(first.word, first.text)),
        }
    }

    /// Whether the condition holds; for files called a second time with the shell's answer.
    pub fn evaluate(
        &self,
        exchange: &mut Exchange,
        context: &mut Context,
        answer: Option<Answer>,
        logs: bool,
    ) -> Outcome {
        match self {
            Condition::True(variable) => {
                Outcome::Known(exchange.with_variable(*variable, context, |_, _, text| is_true(text)))
            }
            Condition::Equals { variable, value, negated } => {
                let equal = exchange.with_variable(*variable, context, |exchange, context, left| {
                    let mut right = context.env.scratch();
                    render_value(exchange, context, value, &mut right);
                    let equal = left == right;
                    context.env.give_back(right);
                    equal
                });
                Outcome::Known(equal != *negated)
            }
            Condition::Matches { variable, regex, negated } => {
                let matched = exchange.with_variable(*variable, context, |exchange, context, text| {
                    match_and_log(exchange, context, regex, text, logs)
                });
                match matched {
                    Ok(matched) => Outcome::Known(matched != *negated),
                    Err(status) => Outcome::Refused(status),
                }
            }
            Condition::File { test, negated, path } => match answer {
                None => {
                    let mut text = std::mem::take(&mut exchange.path);
                    text.clear();
                    render_value(exchange, context, path, &mut text);
                    // The whole path is the configuration's own, so there is no root that it could climb out of.
                    exchange.root_length = text.len() as u32;
                    exchange.path = text;
                    exchange.apply_symlink_rules(context);
                    Outcome::Need(Need::File(Want::Stat))
                }
                Some(Answer::File(answer)) => judge_file(exchange, context, *test, answer)
                    .map_or_else(Outcome::Refused, |holds| Outcome::Known(holds != *negated)),
                Some(_) => Outcome::Refused(Status::INTERNAL_SERVER_ERROR),
            },
        }
    }
}

/// Matches and, with `rewrite_log`, says so. A failed match forgets the captures, as nginx does here.
pub fn match_and_log(
    exchange: &mut Exchange,
    context: &mut Context,
    regex: &SiteRegex,
    subject: &[u8],
    logs: bool,
) -> Result<bool, Status> {
    let matched = matching::try_match(exchange, context, regex, subject)?;
    if !matched {
        exchange.forget_captures();
    }
    if logs {
        let verb = if matched { "matches" } else { "does not match" };
        let pattern = String::from_utf8_lossy(regex.regex.pattern());
        let subject = String::from_utf8_lossy(subject);
        exchange.log(context, Level::Notice, format_args!("\"{pattern}\" {verb} \"{subject}\""));
    }
    Ok(matched)
}

fn judge_file(
    exchange: &mut Exchange,
    context: &mut Context,
    test: FileTest,
    answer: FileAnswer,
) -> Result<bool, Status> {
    let file = match answer {
        FileAnswer::Found(file) => file,
        FileAnswer::Failed(failure) => {
            match failure.reason {
                FailureReason::NotFound => {}
                FailureReason::Busy => return Err(Status::SERVICE_UNAVAILABLE),
                _ => exchange.log_file_failure(context, Level::Error, failure),
            }
            return Ok(false);
        }
    };
    Ok(match test {
        FileTest::File => file.kind == FileKind::File,
        FileTest::Directory => file.kind == FileKind::Directory,
        FileTest::Exists => file.kind != FileKind::Other,
        FileTest::Executable => file.mode & 0o100 != 0,
    })
}

/// A word of a condition without the parentheses that were glued to it.
struct Inner<'a> {
    text: &'a [u8],
    word: &'a Word,
}

fn inner_words(args: &[Word]) -> Result<Vec<Inner<'_>>, Complaint> {
    let mut words: Vec<Inner> = args.iter().map(|word| Inner { text: word.as_bytes(), word }).collect();
    let invalid = |inner: &Inner| condition_complaint("invalid condition", inner.word, inner.text);
    if let Some(first) = words.first_mut() {
        first.text = first.text.strip_prefix(b"(").ok_or_else(|| invalid(first))?;
    }
    if words.first().is_some_and(|first| first.text.is_empty()) {
        words.remove(0);
    }
    match words.last_mut() {
        Some(last) if last.word.as_bytes() == b")" => {
            words.pop();
        }
        // `()` is left as `)`: a condition that nothing can be made of, shown as nginx shows it.
        Some(last) if last.text == b")" => {}
        Some(last) => last.text = last.text.strip_suffix(b")").ok_or_else(|| invalid(last))?,
        None => {}
    }
    Ok(words)
}

fn condition_complaint(what: &str, word: &Word, text: &[u8]) -> Complaint {
    Complaint::new(format!("{what} \"{}\"", String::from_utf8_lossy(text))).at(word)
}

fn comparison(
    scope: &mut Scope,
    variable: VariableId,
    operator: &Inner,
    value: &Inner,
) -> Result<Condition, Complaint> {
    let negated = operator.text.starts_with(b"!");
    match operator.text {
        b"=" | b"!=" => {
            let value = scope.builder.template_of(value.text, value.word)?;
            Ok(Condition::Equals { variable, value, negated })
        }
        b"~" | b"~*" | b"!~" | b"!~*" => {
            let regex = scope.builder.regex(value.text, operator.text.ends_with(b"*"), value.word)?;
            Ok(Condition::Matches { variable, regex, negated })
        }
        text => {
            let message = format!("unexpected \"{}\" in condition", String::from_utf8_lossy(text));
            Err(Complaint::new(message).at(operator.word))
        }
    }
}
