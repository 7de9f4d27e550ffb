//! nginx.conf: text to a tree with spans, directive tables, values, diagnostics.
