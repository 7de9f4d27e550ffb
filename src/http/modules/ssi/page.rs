//! What commands of a page and of the pages that it includes share: variables, blocks, captures.

use std::cell::RefCell;
use std::rc::Rc;

use crate::base::regex::{Captures, Regex};

/// The memory of one client's request.
pub type Shared = Rc<RefCell<Page>>;

/// Variables that commands may set, captures by name included.
const MOST_VARIABLES: usize = 256;
/// All their values together, in bytes.
const MOST_VARIABLE_BYTES: usize = 16 << 20;
/// Blocks that pages may have.
const MOST_BLOCKS: usize = 256;
/// All their texts together, in bytes.
const MOST_BLOCK_BYTES: usize = 1 << 20;
/// Subrequests that may come of one request, whichever page asks for them; about what nginx's counter allows at once.
const MOST_INCLUDES: u32 = 64_000;

/// See the module's documentation.
#[derive(Default)]
pub struct Page {
    /// Names are in lower case.
    variables: Vec<(Box<[u8]>, Vec<u8>)>,
    variable_bytes: usize,
    blocks: Vec<Block>,
    block_bytes: usize,
    captures: Captures,
    subject: Vec<u8>,
    includes: u32,
}

struct Block {
    name: Box<[u8]>,
    text: Rc<[u8]>,
}

impl Page {
    /// The value of a variable that commands have set; `name` is in lower case. The digits `0` to `9` are captures
    /// first.
    pub fn variable(&self, name: &[u8]) -> Option<&[u8]> {
        if let [digit @ b'0'..=b'9'] = name {
            let group = usize::from(digit - b'0');
            // As PCRE counts: up to the last one that took part.
            if (group..self.captures.len()).any(|group| self.captures.get(group).is_some()) {
                return Some(self.captures.text(group, &self.subject).unwrap_or_default());
            }
        }
        self.variables.iter().find(|(other, _)| **other == *name).map(|(_, value)| &value[..])
    }

    /// Sets a variable.
    ///
    /// # Errors
    /// There are too many of them, or they are too long.
    pub fn set(&mut self, name: &[u8], value: Vec<u8>) -> Result<(), String> {
        let place = self.variables.iter().position(|(other, _)| **other == *name);
        let freed = place.map_or(0, |place| self.variables[place].1.len());
        let bytes = self.variable_bytes - freed + value.len();
        if bytes > MOST_VARIABLE_BYTES || (place.is_none() && self.variables.len() >= MOST_VARIABLES) {
            return Err("too many SSI variables".to_owned());
        }
        self.variable_bytes = bytes;
        match place {
            Some(place) => self.variables[place].1 = value,
            None => self.variables.push((name.into(), value)),
        }
        Ok(())
    }

    /// Makes a variable, empty, unless it is there.
    ///
    /// # Errors
    /// There are too many of them.
    pub fn declare(&mut self, name: &[u8]) -> Result<(), String> {
        let is_there = self.variables.iter().any(|(other, _)| **other == *name);
        if is_there { Ok(()) } else { self.set(name, Vec::new()) }
    }

    /// Whether `regex` matches. If it does, captures and the variables of named groups are set; if not, they stay.
    ///
    /// # Errors
    /// The match reached its bound, or there are too many variables.
    pub fn matches(&mut self, regex: &Regex, subject: &[u8]) -> Result<bool, String> {
        let found = regex.captures_into(subject, &mut self.captures).map_err(|error| error.to_string())?;
        if found {
            self.subject.clear();
            self.subject.extend_from_slice(subject);
            for (name, group) in regex.names() {
                let text = self.captures.text(group, subject).unwrap_or_default().to_vec();
                self.set(name.to_ascii_lowercase().as_bytes(), text)?;
            }
        }
        Ok(found)
    }

    /// How long the next block may be, in bytes; `None` if there may not be one.
    pub fn room_for_block(&self) -> Option<usize> {
        (self.blocks.len() < MOST_BLOCKS).then_some(MOST_BLOCK_BYTES - self.block_bytes)
    }

    /// Keeps a block. One of a name that is there already is never found, as in nginx.
    pub fn add_block(&mut self, name: &[u8], text: &[u8]) {
        if self.room_for_block().is_some_and(|room| text.len() <= room) {
            self.block_bytes += text.len();
            self.blocks.push(Block { name: name.into(), text: text.into() });
        }
    }

    /// The text of a block.
    pub fn block(&self, name: &[u8]) -> Option<Rc<[u8]>> {
        self.blocks.iter().find(|block| *block.name == *name).map(|block| Rc::clone(&block.text))
    }

    /// Counts a subrequest; `false` if it is one too many.
    pub fn count_include(&mut self) -> bool {
        self.includes = self.includes.saturating_add(1);
        self.includes <= MOST_INCLUDES
    }
}
