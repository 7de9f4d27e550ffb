//! Finds the commands in a page: `<!--#name key="value" key='value' -->`.
//!
//! A machine over bytes, so that any split of the page finds the same. What is no command passes through at once; of
//! one that has begun the text is kept, because it goes out as text should the page end within it, and is kept in
//! blocks. What is taken for a mistake, and up to where, is nginx's: a mistake ends at the next `-->`.

use memchr::memchr;

/// The name of a command has at most so many bytes (nginx's `NGX_HTTP_SSI_COMMAND_LEN`).
const LONGEST_NAME: usize = 32;
/// The name of a parameter has at most so many bytes (nginx's `NGX_HTTP_SSI_PARAM_LEN`).
const LONGEST_KEY: usize = 32;
/// A command has at most so many parameters (nginx's `NGX_HTTP_SSI_MAX_PARAMS`).
pub const MOST_PARAMETERS: usize = 16;
/// White space of a command, in bytes, beyond what its names and values may be long. nginx has no such bound.
const MOST_SPACE: usize = 4096;

/// What the scanner has found.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// A command that is whole: it is in [`Scanner::command`].
    Command,
    /// A mistake, with the message for the log.
    Mistake(String),
}

/// A command as it was written; variables and escapes in values are as they stand.
#[derive(Debug, Default)]
pub struct Command {
    /// Its name.
    pub name: Vec<u8>,
    /// Its parameters in order.
    pub parameters: Vec<Parameter>,
    /// All of its text.
    pub text: Vec<u8>,
}

/// A parameter of a command.
#[derive(Debug, Default)]
pub struct Parameter {
    /// Its name.
    pub key: Vec<u8>,
    /// Its value, without quotes.
    pub value: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Text,
    /// So many bytes of `<!--#` were seen.
    Opening(usize),
    BeforeName,
    Name,
    BeforeKey,
    Key,
    BeforeEquals,
    BeforeValue,
    /// Within a value that this quote ends.
    Value(u8),
    /// Behind a backslash in such a value.
    Escaped(u8),
    AfterValue,
    /// So many bytes of `-->` were seen.
    Closing(usize),
    /// The same behind a mistake.
    Mistaken(usize),
}

const OPENING: &[u8] = b"<!--#";
const CLOSING: &[u8] = b"-->";

/// See the module's documentation.
pub struct Scanner {
    state: State,
    /// The command that was found, or that has begun.
    pub command: Command,
    mistake: Option<String>,
    /// A mistake was so long that its text was dropped.
    is_text_lost: bool,
    value_length: usize,
    longest: usize,
}

impl Scanner {
    /// One for values of at most so many bytes.
    pub fn new(value_length: usize) -> Scanner {
        let parameter = value_length.saturating_add(LONGEST_KEY);
        Scanner {
            state: State::Text,
            command: Command::default(),
            mistake: None,
            is_text_lost: false,
            value_length,
            longest: parameter.saturating_mul(MOST_PARAMETERS).saturating_add(MOST_SPACE),
        }
    }

    /// Takes input up to the end of the next command or mistake, or all of it; text goes to `text`.
    pub fn scan(&mut self, input: &mut &[u8], text: &mut Vec<u8>) -> Option<Found> {
        while let Some(&byte) = input.first() {
            match self.state {
                State::Text => {
                    let end = memchr(b'<', input).unwrap_or(input.len());
                    text.extend_from_slice(&input[..end]);
                    *input = &input[end..];
                    if !input.is_empty() {
                        self.state = State::Opening(0);
                    }
                    continue;
                }
                State::Opening(seen) => {
                    if byte == OPENING[seen] {
                        self.open(seen + 1);
                    } else {
                        text.extend_from_slice(&OPENING[..seen]);
                        self.state = State::Text;
                        continue;
                    }
                }
                State::Mistaken(seen) => {
                    self.keep(byte);
                    self.state = State::Mistaken(closed(seen, byte));
                }
                _ => {
                    self.keep(byte);
                    if let Err(mistake) = self.step(byte) {
                        self.mistake = Some(mistake);
                        if !matches!(self.state, State::Mistaken(_)) {
                            self.state = State::Mistaken(0);
                        }
                    }
                }
            }
            *input = &input[1..];
            if let State::Closing(3) | State::Mistaken(3) = self.state {
                self.state = State::Text;
                return Some(self.mistake.take().map_or(Found::Command, Found::Mistake));
            }
        }
        None
    }

    /// The page is over: a command that has begun is text after all. A mistake whose text was dropped for its length
    /// stays one.
    pub fn finish(&mut self, text: &mut Vec<u8>) -> Option<Found> {
        match std::mem::replace(&mut self.state, State::Text) {
            State::Text => None,
            State::Opening(seen) => {
                text.extend_from_slice(&OPENING[..seen]);
                None
            }
            _ if self.is_text_lost => self.mistake.take().map(Found::Mistake),
            _ => {
                self.mistake = None;
                text.append(&mut self.command.text);
                None
            }
        }
    }

    fn open(&mut self, seen: usize) {
        self.state = State::Opening(seen);
        if seen == OPENING.len() {
            self.state = State::BeforeName;
            self.is_text_lost = false;
            self.command.name.clear();
            self.command.parameters.clear();
            self.command.text.clear();
            self.command.text.extend_from_slice(OPENING);
        }
    }

    /// Keeps the text of a command within its bound.
    fn keep(&mut self, byte: u8) {
        if self.is_text_lost {
            return;
        }
        self.command.text.push(byte);
        if self.command.text.len() <= self.longest {
            return;
        }
        self.is_text_lost = true;
        self.command.text = Vec::new();
        if !matches!(self.state, State::Mistaken(_)) {
            self.mistake = Some(format!("too long \"{}\" SSI command", shown(&self.command.name)));
            self.state = State::Mistaken(0);
        }
    }

    /// One byte of a command. A mistake sets the state where the byte may begin the end of the command.
    fn step(&mut self, byte: u8) -> Result<(), String> {
        let is_space = matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        match self.state {
            State::BeforeName | State::BeforeKey if is_space => {}
            State::BeforeEquals | State::BeforeValue if is_space => {}
            State::BeforeName => {
                self.command.name.push(byte);
                self.state = State::Name;
            }
            State::Name => match byte {
                b'-' => self.state = State::Closing(1),
                _ if is_space => self.state = State::BeforeKey,
                _ => {
                    self.command.name.push(byte);
                    if self.command.name.len() > LONGEST_NAME {
                        return Err(format!("the \"{}...\" SSI command is too long", self.name()));
                    }
                }
            },
            State::BeforeKey if byte == b'-' => self.state = State::Closing(1),
            State::BeforeKey => {
                // One too many tells enough.
                self.command.parameters.truncate(MOST_PARAMETERS);
                self.command.parameters.push(Parameter { key: vec![byte], value: Vec::new() });
                self.state = State::Key;
            }
            State::Key => return self.step_key(byte, is_space),
            State::BeforeEquals if byte == b'=' => self.state = State::BeforeValue,
            State::BeforeEquals => return Err(self.unexpected_behind_key(byte)),
            State::BeforeValue => match byte {
                b'"' | b'\'' => self.state = State::Value(byte),
                _ => {
                    self.state = State::Mistaken(closed(0, byte));
                    let (key, name) = (self.key(), self.name());
                    return Err(format!(
                        "unexpected \"{}\" symbol before value of \"{key}\" parameter in \"{name}\" SSI command",
                        shown(&[byte])
                    ));
                }
            },
            State::Value(quote) if byte == quote => self.state = State::AfterValue,
            State::Value(quote) => {
                self.state = if byte == b'\\' { State::Escaped(quote) } else { State::Value(quote) };
                return self.push_value(byte);
            }
            State::Escaped(quote) => {
                self.state = State::Value(quote);
                return self.push_value(byte);
            }
            State::AfterValue if is_space => self.state = State::BeforeKey,
            State::AfterValue if byte == b'-' => self.state = State::Closing(1),
            State::AfterValue => {
                let value = self.command.parameters.last().map(|last| shown(&last.value)).unwrap_or_default();
                return Err(format!(
                    "unexpected \"{}\" symbol after \"{value}\" value of \"{}\" parameter in \"{}\" SSI command",
                    shown(&[byte]),
                    self.key(),
                    self.name()
                ));
            }
            State::Closing(seen) if byte == CLOSING[seen] => self.state = State::Closing(seen + 1),
            State::Closing(_) => {
                let byte = shown(&[byte]);
                return Err(format!("unexpected \"{byte}\" symbol in \"{}\" SSI command", self.name()));
            }
            State::Text | State::Opening(_) | State::Mistaken(_) => {}
        }
        Ok(())
    }

    fn step_key(&mut self, byte: u8, is_space: bool) -> Result<(), String> {
        match byte {
            b'=' => self.state = State::BeforeValue,
            b'-' => return Err(self.unexpected_behind_key(byte)),
            _ if is_space => self.state = State::BeforeEquals,
            _ => {
                let Some(last) = self.command.parameters.last_mut() else { return Ok(()) };
                last.key.push(byte);
                if last.key.len() > LONGEST_KEY {
                    let (key, name) = (self.key(), self.name());
                    return Err(format!("too long \"{key}...\" parameter in \"{name}\" SSI command"));
                }
            }
        }
        Ok(())
    }

    fn unexpected_behind_key(&mut self, byte: u8) -> String {
        self.state = State::Mistaken(closed(0, byte));
        let (byte, key, name) = (shown(&[byte]), self.key(), self.name());
        format!("unexpected \"{byte}\" symbol after \"{key}\" parameter in \"{name}\" SSI command")
    }

    fn push_value(&mut self, byte: u8) -> Result<(), String> {
        let Some(last) = self.command.parameters.last_mut() else { return Ok(()) };
        last.value.push(byte);
        if last.value.len() <= self.value_length {
            return Ok(());
        }
        let value = shown(&last.value);
        Err(format!(
            "too long \"{value}...\" value of \"{}\" parameter in \"{}\" SSI command",
            self.key(),
            self.name()
        ))
    }

    fn name(&self) -> String {
        shown(&self.command.name)
    }

    fn key(&self) -> String {
        self.command.parameters.last().map(|last| shown(&last.key)).unwrap_or_default()
    }
}

/// How much of `-->` was seen behind one more byte of a mistake. As in nginx a third `-` begins anew.
fn closed(seen: usize, byte: u8) -> usize {
    if byte == CLOSING[seen] { seen + 1 } else { 0 }
}

/// As the log shows it.
pub fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}
