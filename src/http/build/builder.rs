//! What belongs to a configuration as a whole while it is read: variables, log targets, diagnostics, frozen scopes.

use std::collections::HashMap;
use std::sync::Arc;

use crate::base::log::ErrorTarget;
use crate::base::regex::Regex;
use crate::conf::diagnostics::{Diagnostic, Diagnostics, Severity};
use crate::conf::directive::Complaint;
use crate::conf::log_list::LogList;
use crate::conf::source::{IncludeId, SourceMap, Span};
use crate::conf::template::{Template, VariableId, VariableNames};
use crate::conf::tree::{self, Word};
use crate::http::access_log::LogFormat;
use crate::http::modules;
use crate::http::modules::upstream::UpstreamDraft;
use crate::http::site::{Location, LocationId};
use crate::http::upstream_call::{PassAddress, PassId};
use crate::http::variables::{Compute, Get, Slot, Source, Variable, VariableEntry, Variables, find_builtin};
use crate::http::zones::ZoneDrafts;
use crate::upstream::match_rules::MatchSlot;

use super::servers::ServerDraft;

/// Looks the addresses of a name up; none if there are none.
pub type Resolve = fn(&str) -> Vec<std::net::IpAddr>;

/// How the configuration defines a variable.
enum Definition {
    /// Assigned on the request's way.
    Assigned,
    /// Met on the request's way.
    Met,
    /// Computed; `true` if its first value is kept.
    Computed(Arc<dyn Compute>, bool),
}

/// See the module's documentation.
#[derive(Default)]
pub struct Builder {
    /// The text that is read.
    pub sources: SourceMap,
    /// What is to be reported.
    pub diagnostics: Diagnostics,
    /// Folder that relative paths begin in (`-p`), with a slash at its end.
    pub prefix: String,
    /// The machine's name, for `$hostname`.
    pub hostname: Box<[u8]>,
    /// Port of servers without a `listen`: 80 for root, else 8000.
    pub default_port: u16,
    /// Looks a name of `listen` up.
    pub resolve: Option<Resolve>,
    /// Folder of the main configuration file, with a slash at its end.
    pub conf_prefix: String,
    /// Every log that the settings name, equal ones once.
    pub logs: LogList,
    /// Where errors go as long as the configuration does not say.
    pub default_error_log: Option<crate::conf::log_target::LogTarget>,
    /// `error_log`s of the main context.
    pub error_log: Vec<ErrorTarget>,
    /// `log_format`s by name.
    pub log_formats: HashMap<Box<[u8]>, Arc<LogFormat>>,
    /// Directives that were read and have no meaning here, for one info line.
    pub without_meaning: Vec<Box<str>>,
    /// The servers read so far.
    pub servers: Vec<ServerDraft>,
    /// The `upstream` blocks read so far.
    pub upstreams: Vec<UpstreamDraft>,
    /// The `upstream` block that is being read.
    pub upstream: Option<Box<UpstreamDraft>>,
    /// `match` blocks by name, those that are only mentioned included.
    pub matches: HashMap<Box<[u8]>, MatchMention>,
    /// Addresses that requests are passed on to, equal ones once; the site has a group for each.
    pub passes: Vec<PassAddress>,
    /// Databases to be read when all text has been.
    pub databases: Vec<modules::geo_mmdb::Wanted>,
    /// Zones, by number.
    pub zones: ZoneDrafts,
    /// Scopes; each gets its number when it is read and its settings when all is merged.
    pub locations: Vec<Option<Location>>,
    names: VariableNames,
    /// Where each variable was mentioned first.
    mentions: Vec<Option<Span>>,
    definitions: HashMap<VariableId, Definition>,
}

/// A regular expression with the variables that its named groups set.
#[derive(Clone, Debug)]
pub struct SiteRegex {
    /// The expression.
    pub regex: Arc<Regex>,
    /// Variables and their groups.
    pub named: Box<[(VariableId, u16)]>,
}

/// A `match` block, or the mention of one: either may come first.
#[derive(Default)]
pub struct MatchMention {
    /// Its rules.
    pub rules: Arc<MatchSlot>,
    /// Where it was mentioned first.
    pub mentioned: Option<(Span, IncludeId)>,
}

impl Builder {
    /// The `match` block of this name, wherever it stands.
    pub fn match_mention(&mut self, name: &[u8]) -> &mut MatchMention {
        self.matches.entry(name.into()).or_default()
    }

    /// Reports names of `match` blocks that are not there.
    pub fn report_unknown_matches(&mut self) {
        let mut unknown: Vec<_> = std::mem::take(&mut self.matches)
            .into_iter()
            .filter(|(_, mention)| mention.rules.get().is_none())
            .filter_map(|(name, mention)| Some((mention.mentioned?, name)))
            .collect();
        unknown.sort_by_key(|((span, _), _)| span.start);
        for ((span, include), name) in unknown {
            self.error_at(span, include, format!("unknown match \"{}\"", String::from_utf8_lossy(&name)));
        }
    }
    /// Takes what is wrong with a directive; where a `;` seems to be missing, the place is shown.
    pub fn report(&mut self, diagnostic: Diagnostic, directive: &tree::Directive) {
        let diagnostic = match diagnostic.severity {
            Severity::Error => diagnostic.suspect_missing_semicolon(directive, &self.sources),
            _ => diagnostic,
        };
        self.diagnostics.push(diagnostic);
    }

    /// The number of an address that requests are passed on to. Groups are looked up when all is read: an `upstream`
    /// block may stand behind the directive that names it.
    pub fn pass(&mut self, address: PassAddress) -> PassId {
        let position = self.passes.iter().position(|known| *known == address);
        let position = position.unwrap_or_else(|| {
            self.passes.push(address);
            self.passes.len() - 1
        });
        PassId(position as u32)
    }

    /// A number for a scope that is being read.
    pub fn new_location(&mut self) -> LocationId {
        self.locations.push(None);
        LocationId(self.locations.len() as u32 - 1)
    }

    /// Compiles a word with variables.
    pub fn template(&mut self, word: &Word) -> Result<Template, Complaint> {
        self.template_of(word.as_bytes(), word)
    }

    /// Compiles a part of a word with variables.
    pub fn template_of(&mut self, text: &[u8], word: &Word) -> Result<Template, Complaint> {
        let template = Template::parse(text, &mut self.names);
        // Also of a text that is no template: the variables before the mistake have their numbers.
        self.note_mentions(word);
        template.map_err(|error| Complaint::new(error.to_string()).at(word))
    }

    fn note_mentions(&mut self, word: &Word) {
        self.mentions.resize(self.names.names().len(), Some(word.span));
    }

    /// The variable that a word such as `$name` names; `None` unless the word is just that.
    pub fn variable_name(&mut self, word: &Word) -> Option<VariableId> {
        let name = word.as_str()?.strip_prefix('$')?;
        let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        plain.then(|| self.variable(name, word))
    }

    /// The variable of this name.
    pub fn variable(&mut self, name: &str, word: &Word) -> VariableId {
        let id = self.names.number(name);
        self.note_mentions(word);
        id
    }

    /// Declares a variable that requests assign (`set`, named captures).
    pub fn define_assigned(&mut self, id: VariableId) -> Result<(), Complaint> {
        self.check_definable(id)?;
        self.definitions.entry(id).or_insert(Definition::Assigned);
        Ok(())
    }

    /// Declares a variable that a request meets on its way; it may be assigned as well.
    pub fn define_met(&mut self, id: VariableId) -> Result<(), Complaint> {
        self.check_definable(id)?;
        let definition = self.definitions.entry(id).or_insert(Definition::Met);
        if matches!(definition, Definition::Assigned) {
            *definition = Definition::Met;
        }
        Ok(())
    }

    /// Declares a variable whose value is computed; `kept` if its first value stays for the request.
    pub fn define_computed(
        &mut self,
        id: VariableId,
        compute: Arc<dyn Compute>,
        kept: bool,
    ) -> Result<(), Complaint> {
        self.check_definable(id)?;
        self.definitions.insert(id, Definition::Computed(compute, kept));
        Ok(())
    }

    fn check_definable(&self, id: VariableId) -> Result<(), Complaint> {
        let name = &self.names.names()[id.0 as usize];
        match find_builtin(name) {
            Some(entry) if !entry.changeable => {
                Err(Complaint::new(format!("the duplicate \"{name}\" variable")))
            }
            _ => Ok(()),
        }
    }

    /// Compiles a regular expression and declares the variables of its named groups.
    pub fn regex(&mut self, pattern: &[u8], caseless: bool, word: &Word) -> Result<SiteRegex, Complaint> {
        let regex = Regex::new(pattern, caseless)
            .map_err(|error| Complaint::new(error.nginx_text(pattern)).at(word))?;
        let named = self.declare_groups(&regex, word)?;
        Ok(SiteRegex { regex: Arc::new(regex), named })
    }

    /// Declares the variables of a regular expression's named groups.
    pub fn declare_groups(
        &mut self,
        regex: &Regex,
        word: &Word,
    ) -> Result<Box<[(VariableId, u16)]>, Complaint> {
        let mut named = Vec::new();
        for (name, group) in regex.names() {
            let id = self.variable(name, word);
            self.define_met(id).map_err(|complaint| complaint.at(word))?;
            named.push((id, group as u16));
        }
        Ok(named.into())
    }

    /// Makes a path absolute: relative ones begin in the prefix.
    pub fn absolute(&self, path: &str) -> String {
        if path.starts_with('/') { path.to_owned() } else { format!("{}{path}", self.prefix) }
    }

    /// Resolves every variable that was mentioned; unknown ones are reported.
    pub fn finish_variables(&mut self) -> Variables {
        let mut variables = Variables::default();
        for (index, name) in std::mem::take(&mut self.names).names().iter().enumerate() {
            let id = VariableId(index as u32);
            let builtin = find_builtin(name);
            let source = match (self.definitions.remove(&id), builtin) {
                (_, Some(entry)) if entry.assign.is_some() => builtin_source(entry, name, &mut variables),
                (Some(Definition::Assigned), _) => Source::Assigned(variables.new_slot()),
                (Some(Definition::Met), _) => Source::Met(variables.new_slot()),
                (Some(Definition::Computed(compute, kept)), _) => {
                    let slot = kept.then(|| variables.new_slot());
                    Source::Computed(compute, slot)
                }
                (None, Some(entry)) => builtin_source(entry, name, &mut variables),
                (None, None) => {
                    self.report_unknown(name, self.mentions[index]);
                    Source::Assigned(variables.new_slot())
                }
            };
            variables.numbers.insert(name.clone(), id);
            variables.list.push(Variable {
                name: name.clone(),
                source,
                assign: builtin.and_then(|entry| entry.assign),
            });
        }
        if variables.slots > usize::from(u16::MAX) {
            self.diagnostics
                .push(Diagnostic::error("more than 65535 variables that requests keep values of"));
        }
        variables
    }

    fn report_unknown(&mut self, name: &str, span: Option<Span>) {
        let Some(span) = span else { return };
        let mut diagnostic = Diagnostic::error(format!("unknown \"{name}\" variable")).at(span);
        let known = modules::variables().map(|entry| entry.name);
        if let Some(nearest) = crate::conf::suggest::nearest(name, known) {
            diagnostic = diagnostic.help(format!("did you mean `${nearest}`?"));
        }
        self.diagnostics.push(diagnostic);
    }

    /// Takes a warning about a word.
    pub fn warn_at(&mut self, word: &Word, include: IncludeId, message: impl Into<String>) {
        self.diagnostics.push(Diagnostic::warning(message).at(word.span).within(include));
    }

    /// Takes an error about a place.
    pub fn error_at(&mut self, span: Span, include: IncludeId, message: impl Into<String>) {
        self.diagnostics.push(Diagnostic::error(message).at(span).within(include));
    }
}

impl Variables {
    fn new_slot(&mut self) -> Slot {
        self.slots += 1;
        // Beyond 65,535 there is no site: see `finish_variables`.
        Slot((self.slots - 1) as u16)
    }
}

fn builtin_source(entry: &'static VariableEntry, name: &str, variables: &mut Variables) -> Source {
    match entry.get {
        Get::Value(get) => Source::Builtin(get, entry.kept.then(|| variables.new_slot())),
        Get::Family(get) => Source::Family(get, name.as_bytes()[entry.name.len()..].into()),
    }
}
