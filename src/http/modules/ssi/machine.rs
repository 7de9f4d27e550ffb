//! The machine that a page's body goes through.
//!
//! The scanner finds commands; here they are followed, in the order of the page. Errors are nginx's: a message in the
//! log, and the page's message for them in the place of the command.

use std::fmt;

use crate::base::level::Level;
use crate::base::percent::{Escape, escape, escape_html};
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::subrequest::Order;
use crate::message::check_unsafe_uri;

use super::Settings;
use super::page::Shared;
use super::scanner::{Command, Found, MOST_PARAMETERS, Scanner, shown};
use super::values::{evaluate, holds, variable};

/// `if`s within one another; nginx allows one.
pub(super) const MOST_CONDITIONS: usize = 16;
/// Once so many bytes came out of one call, it returns.
pub(super) const ROOM: usize = 64 << 10;

const ERROR_MESSAGE: &[u8] = b"[an error occurred while processing the directive]";

/// A piece of what is sent.
#[derive(Debug)]
pub enum Part {
    /// Bytes as they are.
    Bytes(Vec<u8>),
    /// What a subrequest gives.
    Include(Include),
}

/// `include`
#[derive(Debug)]
pub struct Include {
    /// The subrequest.
    pub order: Order,
    /// Whether the page goes on only when it is over ([`Ssi::resume`]).
    pub wait: bool,
    /// The variable that takes its body, which is not sent then.
    pub set: Option<Vec<u8>>,
}

/// Why [`Ssi::take`] has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All input is taken.
    Starved,
    /// Much has come out; there may be more input, and `take` goes on with it.
    Full,
    /// The last [`Include`] must be over first: see [`Ssi::resume`].
    Waiting,
    /// The page is over.
    Done,
}

/// See the module's documentation.
pub struct Ssi {
    scanner: Scanner,
    page: Shared,
    error_message: Vec<u8>,
    is_silent: bool,
    encoding: Encoding,
    conditions: Vec<Condition>,
    /// `if`s that are open in text that is not shown.
    hidden_conditions: u32,
    block: Option<Block>,
    waiting: Option<Waiting>,
    is_done: bool,
}

/// An `if` that is open.
struct Condition {
    is_shown: bool,
    /// One of its branches was.
    was_shown: bool,
    has_else: bool,
    /// It was an error, and so is all that belongs to it; its text is shown, as in nginx.
    is_broken: bool,
}

/// A block that is open.
struct Block {
    name: Vec<u8>,
    text: Vec<u8>,
    /// How long it may be; `None` for one that is not kept.
    room: Option<usize>,
}

struct Waiting {
    set: Option<Vec<u8>>,
}

/// How `echo` writes values.
#[derive(Clone, Copy)]
enum Encoding {
    None,
    Url,
    Entity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Include,
    Echo,
    Config,
    Set,
    If,
    Elif,
    Else,
    EndIf,
    Block,
    EndBlock,
}

impl Kind {
    fn of(name: &[u8]) -> Option<Kind> {
        Some(match name {
            b"include" => Kind::Include,
            b"echo" => Kind::Echo,
            b"config" => Kind::Config,
            b"set" => Kind::Set,
            b"if" => Kind::If,
            b"elif" => Kind::Elif,
            b"else" => Kind::Else,
            b"endif" => Kind::EndIf,
            b"block" => Kind::Block,
            b"endblock" => Kind::EndBlock,
            _ => return None,
        })
    }

    /// Its parameters, and how many of them, from the first, must be there.
    fn parameters(self) -> (&'static [&'static str], usize) {
        match self {
            Kind::Include => (&["virtual", "file", "wait", "set", "stub"], 0),
            Kind::Echo => (&["var", "default", "encoding"], 1),
            Kind::Config => (&["errmsg", "timefmt"], 0),
            Kind::Set => (&["var", "value"], 2),
            Kind::If | Kind::Elif => (&["expr"], 1),
            Kind::Block => (&["name"], 1),
            Kind::Else | Kind::EndIf | Kind::EndBlock => (&[], 0),
        }
    }
}

/// Where parts go.
struct Sink<'a> {
    parts: &'a mut Vec<Part>,
    /// What goes behind them.
    bytes: Vec<u8>,
    /// How much the parts of this call have in them.
    closed_bytes: usize,
}

impl Sink<'_> {
    fn close_bytes(&mut self) {
        if !self.bytes.is_empty() {
            self.closed_bytes += self.bytes.len();
            self.parts.push(Part::Bytes(std::mem::take(&mut self.bytes)));
        }
    }

    fn push_include(&mut self, include: Include) {
        self.close_bytes();
        self.closed_bytes += include.order.stub.as_ref().map_or(0, Vec::len);
        self.parts.push(Part::Include(include));
    }

    fn is_full(&self) -> bool {
        self.closed_bytes + self.bytes.len() >= ROOM
    }
}

impl fmt::Debug for Ssi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ssi").field("is_done", &self.is_done).finish_non_exhaustive()
    }
}

impl Ssi {
    /// A machine for a page that shares `page` with others.
    pub(super) fn new(settings: &Settings, page: Shared) -> Ssi {
        Ssi {
            scanner: Scanner::new(usize::try_from(settings.value_length).unwrap_or(usize::MAX)),
            page,
            error_message: ERROR_MESSAGE.to_vec(),
            is_silent: settings.silent_errors,
            encoding: Encoding::Entity,
            conditions: Vec::new(),
            hidden_conditions: 0,
            block: None,
            waiting: None,
            is_done: false,
        }
    }

    /// Takes input and appends what comes of it. `last` says that no more input follows; it stays so in later calls.
    pub fn take(
        &mut self,
        exchange: &mut Exchange,
        context: &mut Context,
        input: &mut &[u8],
        last: bool,
        out: &mut Vec<Part>,
    ) -> Progress {
        let mut sink = Sink { parts: out, bytes: Vec::new(), closed_bytes: 0 };
        let progress = self.take_into(exchange, context, input, last, &mut sink);
        sink.close_bytes();
        progress
    }

    fn take_into(
        &mut self,
        exchange: &mut Exchange,
        context: &mut Context,
        input: &mut &[u8],
        last: bool,
        sink: &mut Sink,
    ) -> Progress {
        let mut hidden = Vec::new();
        loop {
            if self.waiting.is_some() {
                return Progress::Waiting;
            }
            if self.is_done {
                return Progress::Done;
            }
            if sink.is_full() {
                return Progress::Full;
            }
            let text = match &mut self.block {
                Some(block) => &mut block.text,
                None if is_shown(&self.conditions, self.hidden_conditions) => &mut sink.bytes,
                None => &mut hidden,
            };
            let mut found = self.scanner.scan(input, text);
            if found.is_none() && last {
                found = self.scanner.finish(text);
                self.is_done = true;
            }
            hidden.clear();
            if let Err(message) = self.bound_block() {
                self.fail(exchange, context, &message, sink);
            }
            match found {
                None if !last => return Progress::Starved,
                None => {}
                Some(Found::Mistake(message)) => self.fail(exchange, context, &message, sink),
                Some(Found::Command) => {
                    let command = std::mem::take(&mut self.scanner.command);
                    if let Err(message) = self.run(exchange, context, &command, sink) {
                        self.fail(exchange, context, &message, sink);
                    }
                    self.scanner.command = command;
                }
            }
        }
    }

    /// How many `if`s are open in what is shown.
    pub(super) fn open_conditions(&self) -> usize {
        self.conditions.len()
    }

    /// The include that [`Progress::Waiting`] was about is over. `captured` is its body, where a variable takes it and
    /// it has not failed; it should be within `subrequest_output_buffer_size`. A variable that is too much stays as it
    /// was.
    pub fn resume(&mut self, captured: Option<Vec<u8>>) {
        let Some(Waiting { set: Some(name) }) = self.waiting.take() else { return };
        if let Some(value) = captured {
            let _ = self.page.borrow_mut().set(&name, value);
        }
    }

    /// Logs what went wrong and shows that something has.
    fn fail(&self, exchange: &mut Exchange, context: &mut Context, message: &str, sink: &mut Sink) {
        exchange.log(context, Level::Error, format_args!("{message}"));
        if !self.is_silent {
            sink.bytes.extend_from_slice(&self.error_message);
        }
    }

    /// Gives a block up that has become too long.
    fn bound_block(&mut self) -> Result<(), String> {
        let Some(block) = &mut self.block else { return Ok(()) };
        match block.room {
            None => {
                block.text.clear();
                Ok(())
            }
            Some(room) if block.text.len() <= room => Ok(()),
            Some(_) => {
                block.room = None;
                block.text = Vec::new();
                Err(format!("too long \"{}\" SSI block", shown(&block.name)))
            }
        }
    }

    fn run(
        &mut self,
        exchange: &mut Exchange,
        context: &mut Context,
        command: &Command,
        sink: &mut Sink,
    ) -> Result<(), String> {
        let Some(kind) = Kind::of(&command.name) else {
            let matters = self.block.is_none() && is_shown(&self.conditions, self.hidden_conditions);
            let invalid = || Err(format!("invalid SSI command: \"{}\"", shown(&command.name)));
            return if matters { invalid() } else { Ok(()) };
        };
        if let Some(block) = &mut self.block {
            if kind != Kind::EndBlock {
                block.text.extend_from_slice(&command.text);
                return self.bound_block();
            }
            check_parameters(kind, command)?;
            if let Some(Block { name, text, room: Some(_) }) = self.block.take() {
                self.page.borrow_mut().add_block(&name, &text);
            }
            return Ok(());
        }
        if !is_shown(&self.conditions, self.hidden_conditions) && self.pass_over(kind) {
            return Ok(());
        }
        if matches!(kind, Kind::Elif | Kind::Else | Kind::EndIf) {
            return self.run_branch(exchange, context, kind, command);
        }
        if kind == Kind::If {
            return self.run_if(exchange, context, command);
        }
        check_parameters(kind, command)?;
        match kind {
            Kind::Include => self.include(exchange, context, command, sink),
            Kind::Echo => {
                self.echo(exchange, context, command, sink);
                Ok(())
            }
            Kind::Config => {
                self.configure(exchange, command);
                Ok(())
            }
            Kind::Set => self.set(exchange, context, command),
            Kind::Block => {
                let room = self.page.borrow().room_for_block();
                self.block =
                    Some(Block { name: given(command, "name").to_vec(), text: Vec::new(), room });
                room.map(drop).ok_or_else(|| "too many SSI blocks".to_owned())
            }
            // Without a block to end it means nothing, as in nginx.
            _ => Ok(()),
        }
    }

    /// A command in text that is not shown; `false` if it matters all the same.
    fn pass_over(&mut self, kind: Kind) -> bool {
        match kind {
            Kind::If => self.hidden_conditions = self.hidden_conditions.saturating_add(1),
            Kind::EndIf if self.hidden_conditions > 0 => self.hidden_conditions -= 1,
            Kind::Elif | Kind::Else if self.hidden_conditions > 0 => {}
            Kind::Elif | Kind::Else | Kind::EndIf => return false,
            Kind::Block => self.block = Some(Block { name: Vec::new(), text: Vec::new(), room: None }),
            _ => {}
        }
        true
    }

    fn run_if(
        &mut self,
        exchange: &mut Exchange,
        context: &mut Context,
        command: &Command,
    ) -> Result<(), String> {
        if self.conditions.len() >= MOST_CONDITIONS {
            self.hidden_conditions = 1;
            return Err("too many \"if\" commands inside one another".to_owned());
        }
        let result = check_parameters(Kind::If, command)
            .and_then(|()| holds(&self.page, exchange, context, given(command, "expr")));
        let (is_broken, is_shown) = result.as_ref().map_or((true, true), |holds| (false, *holds));
        self.conditions.push(Condition { is_shown, was_shown: is_shown, has_else: false, is_broken });
        result.map(drop)
    }

    /// `elif`, `else`, `endif`
    fn run_branch(
        &mut self,
        exchange: &mut Exchange,
        context: &mut Context,
        kind: Kind,
        command: &Command,
    ) -> Result<(), String> {
        let out_of_context = || format!("invalid context of SSI command: \"{}\"", shown(&command.name));
        let condition = self.conditions.last_mut().ok_or_else(out_of_context)?;
        if condition.is_broken {
            if kind == Kind::EndIf {
                self.conditions.pop();
            }
            return Err(out_of_context());
        }
        if kind != Kind::EndIf && condition.has_else {
            return Err(out_of_context());
        }
        check_parameters(kind, command)?;
        match kind {
            Kind::EndIf => drop(self.conditions.pop()),
            Kind::Else => {
                condition.is_shown = !condition.was_shown;
                condition.has_else = true;
            }
            _ if condition.was_shown => condition.is_shown = false,
            _ => {
                condition.is_shown = holds(&self.page, exchange, context, given(command, "expr"))?;
                condition.was_shown = condition.is_shown;
            }
        }
        Ok(())
    }

    fn include(
        &mut self,
        exchange: &mut Exchange,
        context: &mut Context,
        command: &Command,
        sink: &mut Sink,
    ) -> Result<(), String> {
        let find = |key| find(command, key);
        let (target, mut wait) = match (find("virtual"), find("file")) {
            (Some(target), None) => (target, false),
            (None, Some(target)) => (target, true),
            (None, None) => return Err("no parameter in \"include\" SSI command".to_owned()),
            (Some(target), Some(file)) => {
                let (target, file) = (shown(target), shown(file));
                return Err(format!("inclusion may be either virtual=\"{target}\" or file=\"{file}\""));
            }
        };
        let (set, stub) = (find("set"), find("stub"));
        if set.is_some() && stub.is_some() {
            let text = "\"set\" and \"stub\" cannot be used together in \"include\" SSI command";
            return Err(text.to_owned());
        }
        if let Some(word) = find("wait") {
            if wait {
                return Err(format!("\"wait\" cannot be used with file=\"{}\"", shown(target)));
            }
            wait = word.eq_ignore_ascii_case(b"yes");
            if !wait && !word.eq_ignore_ascii_case(b"no") {
                return Err(format!("invalid value \"{}\" in the \"wait\" parameter", shown(word)));
            }
        }
        let mut order = self.order(exchange, context, target)?;
        if let Some(name) = stub {
            let block = self.page.borrow().block(name);
            let missing = || format!("\"stub\"=\"{}\" for \"include\" not found", shown(name));
            order.stub = Some(block.ok_or_else(missing)?.to_vec());
        }
        let set = set.map(<[u8]>::to_ascii_lowercase);
        if let Some(name) = &set {
            self.page.borrow_mut().declare(name)?;
            order.captured = true;
            wait = true;
        }
        if !exchange.may_order() || !self.page.borrow_mut().count_include() {
            return Err(format!("subrequests cycle while processing \"{}\"", shown(&order.uri)));
        }
        if wait {
            self.waiting = Some(Waiting { set: set.clone() });
        }
        sink.push_include(Include { order, wait, set });
        Ok(())
    }

    /// The subrequest for a target; one that does not begin with a slash is beside the page.
    fn order(
        &self,
        exchange: &mut Exchange,
        context: &mut Context,
        target: &[u8],
    ) -> Result<Order, String> {
        let mut text = evaluate(&self.page, exchange, context, target)?;
        if !text.starts_with(b"/") && (!text.is_empty() || target.is_empty()) {
            let folder = memchr::memrchr(b'/', &exchange.uri).map_or(0, |slash| slash + 1);
            text.splice(..0, exchange.uri[..folder].iter().copied());
        }
        let mut uri = Vec::with_capacity(text.len());
        match check_unsafe_uri(&text, &mut uri) {
            Ok(checked) => {
                let args = checked.args.map(|range| text[range].to_vec()).unwrap_or_default();
                Ok(Order { uri, args, ..Order::default() })
            }
            Err(_) => Err(format!("unsafe URI \"{}\" was detected", shown(&uri))),
        }
    }

    fn echo(&mut self, exchange: &mut Exchange, context: &mut Context, command: &Command, sink: &mut Sink) {
        match find(command, "encoding") {
            None => {}
            Some(b"none") => self.encoding = Encoding::None,
            Some(b"url") => self.encoding = Encoding::Url,
            Some(b"entity") => self.encoding = Encoding::Entity,
            Some(other) => {
                let other = shown(other);
                let message = format_args!("unknown encoding \"{other}\" in the \"echo\" command");
                exchange.log(context, Level::Error, message);
            }
        }
        let mut value = context.env.scratch();
        if !variable(&self.page, exchange, context, given(command, "var"), &mut value) {
            value.clear();
            value.extend_from_slice(find(command, "default").unwrap_or(b"(none)"));
        }
        match self.encoding {
            Encoding::None => sink.bytes.extend_from_slice(&value),
            Encoding::Url => escape(&mut sink.bytes, &value, Escape::Html),
            Encoding::Entity => escape_html(&mut sink.bytes, &value),
        }
        context.env.give_back(value);
    }

    fn configure(&mut self, exchange: &mut Exchange, command: &Command) {
        if let Some(message) = find(command, "errmsg") {
            self.error_message = message.to_vec();
        }
        if let Some(format) = find(command, "timefmt") {
            exchange.notes.ssi.get_or_insert_default().time_format = Some(format.to_vec());
        }
    }

    fn set(
        &mut self,
        exchange: &mut Exchange,
        context: &mut Context,
        command: &Command,
    ) -> Result<(), String> {
        let value = evaluate(&self.page, exchange, context, given(command, "value"))?;
        self.page.borrow_mut().set(&given(command, "var").to_ascii_lowercase(), value)
    }
}

fn is_shown(conditions: &[Condition], hidden_conditions: u32) -> bool {
    hidden_conditions == 0 && conditions.last().is_none_or(|condition| condition.is_shown)
}

/// The value of a parameter, if it is given.
fn find<'a>(command: &'a Command, key: &str) -> Option<&'a [u8]> {
    command.parameters.iter().find(|parameter| parameter.key == key.as_bytes()).map(|found| &found.value[..])
}

/// The value of a parameter that must be given, which was checked.
fn given<'a>(command: &'a Command, key: &str) -> &'a [u8] {
    find(command, key).unwrap_or_default()
}

fn check_parameters(kind: Kind, command: &Command) -> Result<(), String> {
    let name = || shown(&command.name);
    if command.parameters.len() > MOST_PARAMETERS {
        return Err(format!("too many SSI command parameters: \"{}\"", name()));
    }
    let (known, needed) = kind.parameters();
    for (index, parameter) in command.parameters.iter().enumerate() {
        let key = || shown(&parameter.key);
        if !known.iter().any(|other| other.as_bytes() == parameter.key) {
            return Err(format!("invalid parameter name: \"{}\" in \"{}\" SSI command", key(), name()));
        }
        if command.parameters[..index].iter().any(|other| other.key == parameter.key) {
            return Err(format!("duplicate \"{}\" parameter in \"{}\" SSI command", key(), name()));
        }
    }
    match known[..needed].iter().find(|key| find(command, key).is_none()) {
        Some(key) => Err(format!("mandatory \"{key}\" parameter is absent in \"{}\" SSI command", name())),
        None => Ok(()),
    }
}
