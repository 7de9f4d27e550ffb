//! nginx.conf: text to a tree with spans, directive tables, values, diagnostics.
//!
//! The way of a configuration, each step a file of its own:
//!
//! 1. [`files`]: where text comes from (the shell's file system, or memory); [`glob`] matches its patterns;
//! 2. [`source`]: every text read, by [`source::FileId`]; spans, lines, chains of `include`;
//! 3. [`lexer`]: text to words and punctuation, by nginx's rules;
//! 4. [`grammar`]: the words of one text to directives and blocks, going on after an error ([`missing`] guesses `;`);
//! 5. [`parser`]: files read once each, `include` replaced by what it names, the whole as a [`parser::Parsed`] [`tree`];
//! 6. the directive tables on top give the tree its meaning, with [`values`] for sizes, times, flags and numbers.
//!
//! What is wrong goes to [`diagnostics`] and is shown by [`render`]; [`known`] and [`suggest`] make it helpful.

pub mod context;
pub mod diagnostics;
pub mod directive;
pub mod dump;
pub mod files;
pub mod glob;
mod grammar;
pub mod known;
mod known_table;
pub mod laws;
pub mod lexer;
pub mod listen;
pub mod log_list;
pub mod log_target;
pub mod main_settings;
pub mod missing;
pub mod parser;
pub mod render;
pub mod source;
pub mod suggest;
pub mod template;
pub mod tree;
pub mod values;
