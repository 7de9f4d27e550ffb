//! The main and events contexts, and the way from files to a site.

use std::collections::HashSet;
use std::sync::OnceLock;
use std::time::Duration;

use crate::base::cidr::Cidr;
use crate::conf::context::Context;
use crate::conf::diagnostics::{Diagnostic, Diagnostics};
use crate::conf::directive::{self, Arity, Call, Complaint, Directive, Table, walk};
use crate::conf::files::Files;
use crate::conf::log_list::LogList;
use crate::conf::log_target::LogTarget;
use crate::conf::main_settings::{CpuAffinity, CpuMask, EnvSetting, MainSettings, UserSetting, WorkerCount};
use crate::conf::parser::Reader;
use crate::conf::source::{Origin, SourceMap};
use crate::conf::tree::{self, Word};
use crate::conf::values;
use crate::http::modules::ssl::SiteTls;
use crate::http::modules::{geo_mmdb, log};
use crate::http::site::Site;

use super::builder::Resolve;
use super::{Builder, Scope, finish};

/// What a configuration is read with.
pub struct BuildOptions<'a> {
    /// The main configuration file.
    pub path: &'a str,
    /// Folder that relative paths begin in, with a slash at its end.
    pub prefix: &'a str,
    /// Directives of the command line (`-g`).
    pub command_line: &'a str,
    /// Where errors go as long as the configuration does not say; relative to the prefix.
    pub error_log: &'a LogTarget,
    /// The logs of the configuration that this one replaces, so that equal ones keep their numbers.
    pub previous_logs: Option<&'a LogList>,
    /// The TLS of the configuration that this one replaces, so that sessions stay good.
    pub previous_tls: Option<&'a SiteTls>,
    /// The machine's name.
    pub hostname: &'a [u8],
    /// Whether port 80 may be bound, so that it is the default one.
    pub privileged: bool,
    /// Looks names of `listen` up; `None` in a configuration test, which needs no DNS.
    pub resolve: Option<Resolve>,
}

/// What came of it.
pub struct Built {
    /// The site, unless there were errors.
    pub site: Option<Site>,
    /// Everything to be reported.
    pub diagnostics: Diagnostics,
    /// The text that it came from.
    pub sources: SourceMap,
}

/// Reads a configuration and freezes it.
pub fn build(files: &mut dyn Files, options: &BuildOptions) -> Built {
    let conf_prefix = match options.path.rfind('/') {
        Some(slash) => &options.path[..=slash],
        None => options.prefix,
    };
    let mut reader = Reader::new(&mut *files, conf_prefix);
    let mut tree = reader.read_text("-g", options.command_line.as_bytes(), Origin::CommandLine);
    tree.extend(reader.read_file(options.path));
    let parsed = reader.finish(tree);
    let mut builder = Box::<Builder>::default();
    builder.diagnostics = parsed.diagnostics;
    builder.sources = parsed.sources;
    builder.prefix = options.prefix.to_owned();
    builder.conf_prefix = conf_prefix.to_owned();
    builder.hostname = options.hostname.into();
    builder.default_error_log = Some(options.error_log.clone());
    if let Some(previous) = options.previous_logs {
        builder.logs = LogList::after(previous);
    }
    builder.default_port = if options.privileged { 80 } else { 8000 };
    builder.resolve = options.resolve;
    let mut scope = MainScope {
        context: Context::MAIN,
        main: MainSettings::default(),
        seen: HashSet::new(),
        builder,
        http: None,
    };
    walk(&mut scope, &parsed.tree);
    if !scope.seen.contains("events") && !scope.builder.diagnostics.has_errors() {
        scope.builder.diagnostics.push(Diagnostic::error("no \"events\" section in configuration"));
    }
    geo_mmdb::read_databases(&mut scope.builder, files);
    let site = finish::finish(scope.main, scope.http, &mut scope.builder, files, options.previous_tls);
    report_without_meaning(&mut scope.builder);
    let diagnostics = std::mem::take(&mut scope.builder.diagnostics);
    Built {
        site: site.filter(|_| !diagnostics.has_errors()),
        diagnostics,
        sources: std::mem::take(&mut scope.builder.sources),
    }
}

fn report_without_meaning(builder: &mut Builder) {
    if builder.without_meaning.is_empty() {
        return;
    }
    let names: Vec<&str> = builder.without_meaning.iter().map(|name| &**name).collect();
    let message = format!("accepted, without meaning here: {}", names.join(", "));
    builder.diagnostics.push(Diagnostic::info(message));
}

/// The main context or `events` while it is read.
pub struct MainScope {
    context: Context,
    main: MainSettings,
    /// Names used so far, for directives that may stand once only.
    seen: HashSet<&'static str>,
    builder: Box<Builder>,
    /// The `http` block, read and not yet merged.
    http: Option<finish::HttpDraft>,
}

/// All directives of the main and events contexts.
pub(super) fn table() -> &'static Table<MainScope> {
    static TABLE: OnceLock<Table<MainScope>> = OnceLock::new();
    TABLE.get_or_init(|| Table::new(DIRECTIVES))
}

impl directive::Scope for MainScope {
    fn context(&self) -> Context {
        self.context
    }

    fn table(&self) -> &'static Table<MainScope> {
        table()
    }

    fn report(&mut self, diagnostic: Diagnostic, directive: &tree::Directive) {
        self.builder.report(diagnostic, directive);
    }
}

/// An entry of the main context.
const fn main(
    name: &'static str,
    arity: Arity,
    default: &'static str,
    doc: &'static str,
    set: directive::Setter<MainScope>,
) -> Directive<MainScope> {
    Directive { name, contexts: Context::MAIN, arity, default, doc, set }
}

/// An entry of the events context.
const fn events(
    name: &'static str,
    arity: Arity,
    default: &'static str,
    doc: &'static str,
    set: directive::Setter<MainScope>,
) -> Directive<MainScope> {
    Directive { name, contexts: Context::EVENTS, arity, default, doc, set }
}

const ONE: Arity = Arity::exactly(1);

static DIRECTIVES: &[Directive<MainScope>] = &[
    main("daemon", Arity::FLAG, "on", "Whether to leave the terminal.", |scope, call| {
        scope.once(call)?;
        scope.main.daemon = is_on(call);
        Ok(())
    }),
    main(
        "master_process",
        Arity::FLAG,
        "on",
        "Whether a master watches over the server process.",
        |scope, call| {
            scope.once(call)?;
            scope.main.master_process = is_on(call);
            Ok(())
        },
    ),
    main("pid", ONE, "logs/nginx.pid", "The file with the master's process number.", |scope, call| {
        scope.once(call)?;
        scope.main.pid = text(call.arg(0))?.to_owned();
        Ok(())
    }),
    main("user", Arity::between(1, 2), "nobody", "Whose rights the workers have.", set_user),
    main("worker_processes", ONE, "1", "How many workers.", set_worker_processes),
    main("worker_cpu_affinity", Arity::at_least(1), "", "Which processors they run on.", set_affinity),
    main("worker_priority", ONE, "0", "Their niceness.", set_priority),
    main("worker_rlimit_nofile", ONE, "", "How many descriptors the server may open.", |scope, call| {
        scope.once(call)?;
        scope.main.worker_rlimit_nofile = Some(number(call)?);
        Ok(())
    }),
    main("worker_rlimit_core", ONE, "", "How large a core file may be.", |scope, call| {
        scope.once(call)?;
        let size = values::parse_offset(call.arg(0).as_bytes()).map_err(|_| invalid(call))?;
        scope.main.worker_rlimit_core = Some(size);
        Ok(())
    }),
    main("worker_shutdown_timeout", ONE, "", "How long a graceful end waits.", |scope, call| {
        scope.once(call)?;
        let ms = values::parse_time_ms(call.arg(0).as_bytes()).map_err(|_| invalid(call))?;
        scope.main.worker_shutdown_timeout = (ms > 0).then(|| Duration::from_millis(ms));
        Ok(())
    }),
    main("working_directory", ONE, "", "Where core files go.", |scope, call| {
        scope.once(call)?;
        scope.main.working_directory = Some(text(call.arg(0))?.to_owned());
        Ok(())
    }),
    main("env", ONE, "TZ", "A variable of the environment to keep or set.", set_env),
    main(
        "error_log",
        Arity::at_least(1),
        "logs/error.log error",
        "Where errors are logged.",
        |scope, call| {
            let error_log = log::main_error_log(&mut scope.builder, call)?;
            scope.main.error_logs.push(error_log);
            Ok(())
        },
    ),
    main("events", Arity::exactly(0).block(), "", "Settings of the event loops.", set_events),
    main("http", Arity::exactly(0).block(), "", "The HTTP server.", set_http),
    main("load_module", ONE, "", "Without meaning here: what is built is there.", without_meaning),
    main("debug_points", ONE, "", "Without meaning here.", without_meaning),
    main("lock_file", ONE, "", "Without meaning here: workers share no lock.", without_meaning),
    main(
        "pcre_jit",
        Arity::FLAG,
        "off",
        "Without meaning here: expressions are always compiled.",
        without_meaning,
    ),
    main("quic_bpf", Arity::FLAG, "off", "Without meaning here.", without_meaning),
    main("ssl_engine", ONE, "", "Without meaning here: TLS has no engines.", without_meaning),
    main("ssl_object_cache_inheritable", Arity::FLAG, "on", "Without meaning here.", without_meaning),
    main(
        "thread_pool",
        Arity::between(2, 3),
        "",
        "Without meaning here: there is one pool.",
        without_meaning,
    ),
    main(
        "timer_resolution",
        ONE,
        "",
        "Without meaning here: the clock is read once a turn.",
        without_meaning,
    ),
    events("worker_connections", ONE, "512", "Connections that one worker may hold.", |scope, call| {
        scope.once(call)?;
        scope.main.worker_connections = u32::try_from(number(call)?).map_err(|_| invalid(call))?;
        Ok(())
    }),
    events("multi_accept", Arity::FLAG, "off", "Whether a wake-up accepts all that wait.", |scope, call| {
        scope.once(call)?;
        scope.main.multi_accept = is_on(call);
        Ok(())
    }),
    events(
        "debug_connection",
        ONE,
        "",
        "Clients whose connections log at debug level.",
        set_debug_connection,
    ),
    events("use", ONE, "epoll", "The event method; epoll is the only one.", set_use),
    events(
        "accept_mutex",
        Arity::FLAG,
        "off",
        "Without meaning: each worker has sockets of its own.",
        without_meaning,
    ),
    events("accept_mutex_delay", ONE, "500ms", "Without meaning here.", without_meaning),
    events("epoll_events", ONE, "512", "Without meaning here.", without_meaning),
    events("worker_aio_requests", ONE, "32", "Without meaning here.", without_meaning),
];

impl MainScope {
    /// Refuses a second use of a directive.
    fn once(&mut self, call: &Call) -> Result<(), Complaint> {
        let entry = DIRECTIVES.iter().find(|entry| entry.name == call.name());
        match entry {
            Some(entry) if !self.seen.insert(entry.name) => {
                Err(Complaint::new(format!("\"{}\" directive is duplicate", call.name())))
            }
            _ => Ok(()),
        }
    }
}

fn is_on(call: &Call) -> bool {
    call.arg(0).as_bytes().eq_ignore_ascii_case(b"on")
}

fn invalid(call: &Call) -> Complaint {
    Complaint::new(values::invalid_value(call.name())).at(call.arg(0))
}

fn number(call: &Call) -> Result<u64, Complaint> {
    values::parse_number(call.arg(0).as_bytes())
        .map_err(|_| Complaint::new(values::invalid_number(call.name())).at(call.arg(0)))
}

fn text(word: &Word) -> Result<&str, Complaint> {
    word.as_str().ok_or_else(|| Complaint::invalid_value(word))
}

fn without_meaning(scope: &mut MainScope, call: &Call) -> Result<(), Complaint> {
    let names = &mut scope.builder.without_meaning;
    if !names.iter().any(|name| **name == *call.name()) {
        names.push(call.name().into());
    }
    Ok(())
}

fn set_user(scope: &mut MainScope, call: &Call) -> Result<(), Complaint> {
    scope.once(call)?;
    let user = text(call.arg(0))?.to_owned();
    let group = call.args().get(1).map(text).transpose()?.map(str::to_owned);
    scope.main.user = Some(UserSetting { user, group, place: String::new() });
    Ok(())
}

fn set_worker_processes(scope: &mut MainScope, call: &Call) -> Result<(), Complaint> {
    scope.once(call)?;
    scope.main.worker_processes = match call.arg(0).as_bytes() {
        b"auto" => WorkerCount::Auto,
        _ => {
            // nginx's words for a bad number are others here than elsewhere.
            let number = number(call).ok().and_then(|number| u32::try_from(number).ok());
            WorkerCount::Fixed(number.ok_or_else(|| invalid(call))?)
        }
    };
    Ok(())
}

fn set_affinity(scope: &mut MainScope, call: &Call) -> Result<(), Complaint> {
    scope.once(call)?;
    let mask = |word: &Word| CpuMask::parse(text(word)?).map_err(|message| Complaint::new(message).at(word));
    scope.main.worker_cpu_affinity = match call.args() {
        [auto] if *auto == "auto" => CpuAffinity::Auto(None),
        [auto, word] if *auto == "auto" => CpuAffinity::Auto(Some(mask(word)?)),
        [auto, ..] if *auto == "auto" => {
            return Err(Complaint::new("invalid number of arguments in \"worker_cpu_affinity\" directive"));
        }
        words => CpuAffinity::Masks(words.iter().map(mask).collect::<Result<_, _>>()?),
    };
    Ok(())
}

fn set_priority(scope: &mut MainScope, call: &Call) -> Result<(), Complaint> {
    scope.once(call)?;
    let word = text(call.arg(0))?;
    scope.main.worker_priority = word
        .parse::<i32>()
        .ok()
        .filter(|niceness| (-20..=20).contains(niceness))
        .ok_or_else(|| invalid(call))?;
    Ok(())
}

fn set_env(scope: &mut MainScope, call: &Call) -> Result<(), Complaint> {
    let word = text(call.arg(0))?;
    let (name, value) = match word.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (word, None),
    };
    scope.main.env.push(EnvSetting { name: name.to_owned(), value });
    Ok(())
}

fn set_debug_connection(scope: &mut MainScope, call: &Call) -> Result<(), Complaint> {
    let word = call.arg(0);
    let parsed = Cidr::parse(text(word)?).ok_or_else(|| Complaint::invalid_parameter(word))?;
    scope.main.debug_connections.push(parsed.cidr);
    Ok(())
}

fn set_use(scope: &mut MainScope, call: &Call) -> Result<(), Complaint> {
    scope.once(call)?;
    match call.arg(0).as_bytes() {
        b"epoll" => Ok(()),
        _ => {
            let message = format!("invalid event type \"{}\"", call.arg(0).lossy());
            Err(Complaint::new(message).at(call.arg(0)).help("`epoll` is the only event method here"))
        }
    }
}

fn set_events(scope: &mut MainScope, call: &Call) -> Result<(), Complaint> {
    scope.once(call)?;
    scope.context = Context::EVENTS;
    walk(scope, call.block());
    scope.context = Context::MAIN;
    Ok(())
}

fn set_http(scope: &mut MainScope, call: &Call) -> Result<(), Complaint> {
    scope.once(call)?;
    let mut http = Scope::http(std::mem::take(&mut scope.builder));
    walk(&mut http, call.block());
    scope.builder = http.builder;
    scope.http = Some(finish::HttpDraft { drafts: http.drafts });
    Ok(())
}
