//! What holds for every configuration: shared by the corpora and the fuzz targets.

use std::net::{IpAddr, Ipv4Addr};

use crate::conf::dump;
use crate::conf::files::MemoryFiles;
use crate::conf::log_list::LogList;
use crate::conf::main_settings::{MainSettings, effective_environment};
use crate::conf::render::{self, Style};

use super::{BuildOptions, build};

/// Builds any bytes as a configuration: nothing panics; there is a site, or an error that says why not, never both; and
/// every error shows as one line.
pub fn fuzz_build(data: &[u8]) {
    let half = &data[..data.len() / 2];
    let mut files = MemoryFiles::new().with("/c/main", data).with("/c/half", half);
    let options = BuildOptions {
        resolve: Some(|_| vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]),
        ..crate::http::laws::options()
    };
    let built = build(&mut files, &options);
    assert_eq!(built.site.is_some(), !built.diagnostics.has_errors());
    for diagnostic in built.diagnostics.iter() {
        assert!(!render::line(diagnostic, &built.sources).contains('\n'), "a line stays a line");
    }
    let text = render::render(&built.diagnostics, &built.sources, Style::rich());
    assert_eq!(text.is_empty(), built.diagnostics.is_empty());
    let mut dumped = Vec::new();
    dump::dump(&built.sources, &mut dumped).expect("a vector takes everything");
    assert!(dumped.len() > data.len() && memchr::memmem::find(&dumped, data).is_some());
    if let Some(site) = &built.site {
        check_main(&site.main);
        assert!(site.listens.sockets().len() <= site.listens.addresses().len());
        let again = LogList::after(&site.logs);
        assert!(again.entries().is_empty());
    }
}

/// Workers, processors and environment are within what the machine has.
fn check_main(main: &MainSettings) {
    let (available, inherited) = ([0, 2, 3], [("PATH".to_owned(), "/bin".to_owned())]);
    let workers = main.worker_processes.resolve(available.len());
    assert!(workers >= 1);
    for worker in 0..workers.min(8) {
        let chosen = main.worker_cpu_affinity.of_worker(worker, &available);
        assert!(chosen.is_none_or(|chosen| !chosen.is_empty()));
    }
    let environment = effective_environment(&main.env, &inherited);
    assert!(environment.len() <= main.env.len() + 1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_before_a_mistake_in_the_same_word_is_an_error_and_no_panic() {
        fuzz_build(b"events {}\nhttp { server { listen 80; return 200 \"$nonesuch$-\"; } }");
    }

    #[test]
    fn more_variables_than_have_slots_are_an_error() {
        let sets: String = (0..65_600).map(|number| format!("set $v{number} x;\n")).collect();
        fuzz_build(format!("events {{}}\nhttp {{ server {{ listen 80; {sets} }} }}").as_bytes());
    }
}
