//! The `thalweg` command: arguments, then one call into `process`.

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use thalweg::process::invocation::{Action, Invocation, Order};
use thalweg::process::serve::{self, ServeAddress, ServeOptions, serve_configuration};

/// An event-driven HTTP server for Linux that reads nginx.conf.
#[derive(Debug, Parser)]
#[command(
    name = "thalweg",
    disable_version_flag = true,
    args_conflicts_with_subcommands = true,
    args_override_self = true
)]
struct CommandLine {
    /// Show the version and exit
    #[arg(short = 'v')]
    version: bool,
    /// Show the version, how it was built and what is in it, and exit
    #[arg(short = 'V')]
    build: bool,
    /// Test the configuration and exit
    #[arg(short = 't')]
    test: bool,
    /// Test the configuration, print it and exit
    #[arg(short = 'T')]
    dump: bool,
    /// Say only what is wrong when testing
    #[arg(short = 'q')]
    quiet: bool,
    /// Send a signal to a running server
    #[arg(short = 's', value_name = "SIGNAL")]
    signal: Option<SignalName>,
    /// The folder that paths are relative to
    #[arg(short = 'p', value_name = "PREFIX")]
    prefix: Option<PathBuf>,
    /// The error log until the configuration names one; "stderr" is the terminal
    #[arg(short = 'e', value_name = "FILE")]
    error_log: Option<String>,
    /// The configuration, relative to the prefix [default: conf/nginx.conf]
    #[arg(short = 'c', value_name = "FILE")]
    configuration: Option<PathBuf>,
    /// Directives for the main context, in front of the configuration
    #[arg(short = 'g', value_name = "DIRECTIVES", allow_hyphen_values = true)]
    directives: Option<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a folder without a configuration
    Serve(ServeArguments),
    /// Print the reference of all directives, as Markdown
    Directives,
}

#[derive(Debug, Args)]
struct ServeArguments {
    /// The folder; the current one if none is given
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// The address and port, or only a port [default: $PORT, else 8080]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Answer unknown paths with /index.html, for single-page applications
    #[arg(long)]
    spa: bool,
    /// Do not list folders that have no index.html
    #[arg(long)]
    no_listing: bool,
    /// Print the configuration that this stands for, and exit
    #[arg(long)]
    print_config: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SignalName {
    Stop,
    Quit,
    Reopen,
    Reload,
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let line = match CommandLine::try_parse_from(question_mark_as_help(&arguments)) {
        Ok(line) => line,
        Err(error) => {
            let _ = error.print();
            // Scripts expect nginx's status, where clap says 2.
            return ExitCode::from(u8::from(error.kind() != ErrorKind::DisplayHelp));
        }
    };
    if line.version || line.build {
        print_version(line.build);
        return ExitCode::SUCCESS;
    }
    if let Some(Command::Directives) = line.command {
        let written = std::io::stdout().write_all(thalweg::http::build::reference().as_bytes());
        return exit_code(i32::from(written.is_err()));
    }
    if let Some(Command::Serve(serve)) = &line.command {
        return match serve_invocation(serve, arguments) {
            Ok(Some(invocation)) => exit_code(thalweg::process::run(&invocation)),
            Ok(None) => ExitCode::SUCCESS,
            Err(problem) => {
                eprintln!("thalweg: [emerg] {problem}");
                ExitCode::FAILURE
            }
        };
    }
    let action = match (line.signal, line.test || line.dump) {
        (_, true) => Action::Test { dump: line.dump },
        (Some(signal), false) => Action::Signal(match signal {
            SignalName::Stop => Order::Stop,
            SignalName::Quit => Order::Quit,
            SignalName::Reopen => Order::Reopen,
            SignalName::Reload => Order::Reload,
        }),
        (None, false) => Action::Run,
    };
    let status = thalweg::process::run(&Invocation {
        prefix: line.prefix,
        configuration: line.configuration,
        error_log: line.error_log,
        directives: line.directives.unwrap_or_default(),
        text: None,
        greeting: None,
        quiet: line.quiet,
        action,
        arguments,
    });
    exit_code(status)
}

fn exit_code(status: i32) -> ExitCode {
    ExitCode::from(u8::try_from(status).unwrap_or(1))
}

/// The call that `thalweg serve` stands for; `None` if it was only to be printed.
fn serve_invocation(
    serve: &ServeArguments,
    arguments: Vec<std::ffi::OsString>,
) -> Result<Option<Invocation>, String> {
    let port = std::env::var("PORT").ok();
    let address = ServeAddress::choose(serve.listen.as_deref(), port.as_deref())?;
    let folder = std::fs::canonicalize(&serve.folder)
        .map_err(|error| format!("\"{}\" cannot be served ({error})", serve.folder.display()))?;
    if !folder.is_dir() {
        return Err(format!("\"{}\" is not a folder", folder.display()));
    }
    let place = address.url().unwrap_or_else(|| address.argument());
    let private = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let pid_path = private.join(format!("thalweg-serve-{}.pid", std::process::id()));
    let configuration = serve_configuration(&ServeOptions {
        folder: folder.as_os_str().as_encoded_bytes().to_vec(),
        address,
        spa: serve.spa,
        listing: !serve.no_listing,
        pid_path: pid_path.into_os_string().into_encoded_bytes(),
        user: serve::owner(&folder),
    });
    if serve.print_config {
        std::io::stdout().write_all(&configuration.text).map_err(|error| error.to_string())?;
        return Ok(None);
    }
    let greeting = format!("thalweg serves {} at {place} (Ctrl-C ends it)", folder.display());
    Ok(Some(Invocation {
        greeting: Some(greeting),
        prefix: Some(folder),
        configuration: Some("thalweg-serve.conf".into()),
        error_log: Some("stderr".to_owned()),
        directives: String::new(),
        text: Some(configuration.text),
        quiet: false,
        action: Action::Run,
        arguments,
    }))
}

/// nginx's `-?`.
fn question_mark_as_help(arguments: &[std::ffi::OsString]) -> Vec<std::ffi::OsString> {
    arguments.iter().map(|word| if word == "-?" { "-h".into() } else { word.clone() }).collect()
}

/// On standard error, as in nginx.
fn print_version(with_build: bool) {
    let version = env!("CARGO_PKG_VERSION");
    eprintln!("thalweg version: thalweg/{version}");
    if with_build {
        let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
        eprintln!("built for {}-{} ({profile})", std::env::consts::ARCH, std::env::consts::OS);
        eprintln!("features: HTTP/1, HTTP/2, TLS, PCRE2");
        eprintln!("prefix: {}", thalweg::process::invocation::DEFAULT_PREFIX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<CommandLine, clap::Error> {
        CommandLine::try_parse_from(line.split(' '))
    }

    #[test]
    fn nginx_spellings_are_understood() {
        <CommandLine as clap::CommandFactory>::command().debug_assert();
        let line = parse("thalweg -tq -p /srv -c a.conf -e stderr").unwrap();
        assert!(line.test && line.quiet && !line.dump);
        assert_eq!(line.prefix, Some("/srv".into()));
        assert_eq!((line.configuration, line.error_log), (Some("a.conf".into()), Some("stderr".to_owned())));
        for text in ["thalweg -s reload", "thalweg -sreload"] {
            assert!(matches!(parse(text).unwrap().signal, Some(SignalName::Reload)), "{text}");
        }
        assert_eq!(parse("thalweg -g daemon.off;").unwrap().directives, Some("daemon.off;".to_owned()));
        assert!(
            parse("thalweg -s foo").is_err() && parse("thalweg -c").is_err() && parse("thalweg foo").is_err()
        );
    }

    #[test]
    fn serve_stands_beside_the_flags() {
        let line = parse("thalweg serve /srv --listen 9000 --spa --no-listing").unwrap();
        let Some(Command::Serve(serve)) = line.command else { panic!("not serve") };
        assert_eq!((serve.folder, serve.listen), ("/srv".into(), Some("9000".to_owned())));
        assert!(serve.spa && serve.no_listing && !serve.print_config);
        assert!(parse("thalweg -t serve").is_err());
    }
}
