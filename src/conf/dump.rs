//! The `-T` output: every file of the configuration, with markers between them.

use std::io::{self, Write};

use super::source::{Origin, SourceMap};

/// Writes each file once, in the order of first use, as nginx does: a marker line, the content as it is, a line end.
/// What came from the command line is no file and is left out.
pub fn dump(sources: &SourceMap, out: &mut dyn Write) -> io::Result<()> {
    for source in sources.iter().filter(|source| source.origin != Origin::CommandLine) {
        writeln!(out, "# configuration file {}:", source.path)?;
        out.write_all(&source.text)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_in_order_of_use_with_nginx_markers() {
        let mut sources = SourceMap::new();
        sources.add("-g", b"daemon off;".to_vec(), Origin::CommandLine);
        sources.add("/etc/nginx.conf", b"events {}\n".to_vec(), Origin::File);
        sources.add("/etc/empty", Vec::new(), Origin::File);
        sources.add("/etc/no_line_end", b"# x \xff".to_vec(), Origin::File);
        let mut out = Vec::new();
        dump(&sources, &mut out).unwrap();
        let expected: &[u8] = b"# configuration file /etc/nginx.conf:\nevents {}\n\n\
            # configuration file /etc/empty:\n\n# configuration file /etc/no_line_end:\n# x \xff\n";
        assert_eq!(out, expected);
    }
}
