//! YAML text -> a tree in which every value knows its line and key path.
//!
//! Scalars keep their text: `0600`, `443/tcp` and `5070-5080` mean what the
//! decoders say, not what YAML's guess of a type would make of them.

use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::problem::{Place, Report};

/// Deepest nesting; the contract needs 7. Bounds recursion over the tree.
const MAX_DEPTH: usize = 24;
/// Most values in a file, aliases expanded. Bounds memory.
const MAX_NODES: usize = 250_000;
/// Characters of a key that appear in a key path.
const MAX_SHOWN: usize = 60;

/// One value.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Where it stands.
    pub place: Place,
    /// What it is.
    pub data: Data,
}

/// The kinds of values.
#[derive(Debug, Clone)]
pub(super) enum Data {
    /// `null`, `~` or nothing: restores the default.
    Null,
    /// Text as written, without quotes.
    Scalar(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping in the order of the file, keys unique.
    Map(Vec<Entry>),
}

/// One key of a mapping.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub place: Place,
    /// Its value.
    pub value: Node,
}

/// `text` cut and quoted as far as a line of output needs it.
pub(super) fn shown(text: &str) -> String {
    let mut cut: String = text.chars().take(MAX_SHOWN).collect();
    if cut.len() < text.len() {
        cut.push_str("...");
    }
    let is_plain = !cut.is_empty() && cut.chars().all(|c| !c.is_control() && !c.is_whitespace());
    if is_plain { cut } else { format!("{cut:?}") }
}

/// The single document of `text`; `None` (with a problem) if it is not YAML.
pub(super) fn parse(text: &str, report: &mut Report<'_>) -> Option<Node> {
    // The scanner takes a NUL for the end of the input.
    if let Some(at) = text.find('\0') {
        let line = 1 + text.bytes().take(at).filter(|b| *b == b'\n').count();
        let path = String::new();
        report.wrong(&Place { line, path }, "the file contains a NUL byte");
        return None;
    }
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let outcome = match event {
            Ok((Event::StreamEnd, _)) => break,
            Ok((event, span)) => builder.take(event, span.start.line(), report),
            Err(error) => Err((error.marker().line(), format!("not YAML: {}", error.info()))),
        };
        if let Err((line, message)) = outcome {
            let path = builder.open.last().map(|o| o.node.place.path.clone());
            let path = path.unwrap_or_default();
            report.wrong(&Place { line, path }, message);
            return None;
        }
    }
    Some(builder.root.unwrap_or(Node {
        place: Place {
            line: 1,
            path: String::new(),
        },
        data: Data::Null,
    }))
}

/// A collection whose end has not come yet.
struct Open {
    node: Node,
    anchor: usize,
    key: Option<(String, Place)>,
    seen: HashSet<String>,
}

#[derive(Default)]
struct Builder {
    root: Option<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    documents: usize,
    nodes: usize,
}

/// What makes the rest of the file meaningless: line and words.
type Fatal = (usize, String);

impl Builder {
    fn take(
        &mut self,
        event: Event<'_>,
        line: usize,
        report: &mut Report<'_>,
    ) -> Result<(), Fatal> {
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err((line, "a second document is not allowed".to_owned()));
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                if tag.is_some() {
                    return Err((line, "YAML tags are not allowed".to_owned()));
                }
                if self.wants_key() {
                    return self.take_key(&text, line);
                }
                let is_null = style == ScalarStyle::Plain
                    && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let data = if is_null {
                    Data::Null
                } else {
                    Data::Scalar(text.into_owned())
                };
                let place = self.place(line, is_null);
                self.attach(Node { place, data }, anchor, report)
            }
            Event::SequenceStart(anchor, tag) => {
                self.start(Data::List(Vec::new()), anchor, tag.is_some(), line)
            }
            Event::MappingStart(anchor, tag) => {
                self.start(Data::Map(Vec::new()), anchor, tag.is_some(), line)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(open) => self.attach(open.node, open.anchor, report),
                None => Ok(()),
            },
            Event::Alias(id) => {
                if self.wants_key() {
                    return Err((line, "a key must be a plain word".to_owned()));
                }
                match self.anchors.get(&id) {
                    // The copy keeps the places of the original: that is where to edit.
                    Some(node) => {
                        let node = node.clone();
                        self.nodes += count(&node);
                        self.attach(node, 0, report)
                    }
                    None => Err((line, "an alias to a value that contains it".to_owned())),
                }
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn wants_key(&self) -> bool {
        self.open
            .last()
            .is_some_and(|o| matches!(o.node.data, Data::Map(_)) && o.key.is_none())
    }

    fn take_key(&mut self, text: &str, line: usize) -> Result<(), Fatal> {
        if let Some(open) = self.open.last_mut() {
            let path = join(&open.node.place.path, text);
            open.key = Some((text.to_owned(), Place { line, path }));
        }
        Ok(())
    }

    /// Place of the value that comes next. Scalars are found where they stand,
    /// everything else at its key.
    fn place(&self, line: usize, at_key: bool) -> Place {
        let Some(open) = self.open.last() else {
            let path = String::new();
            return Place { line, path };
        };
        match (&open.node.data, &open.key) {
            (Data::List(items), _) => Place {
                line,
                path: format!("{}[{}]", open.node.place.path, items.len()),
            },
            (_, Some((_, key))) if at_key => key.clone(),
            (_, Some((_, key))) => Place {
                line,
                path: key.path.clone(),
            },
            (_, None) => open.node.place.clone(),
        }
    }

    fn start(&mut self, data: Data, anchor: usize, tagged: bool, line: usize) -> Result<(), Fatal> {
        if tagged {
            return Err((line, "YAML tags are not allowed".to_owned()));
        }
        if self.wants_key() {
            return Err((line, "a key must be a plain word".to_owned()));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err((line, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let place = self.place(line, true);
        self.open.push(Open {
            node: Node { place, data },
            anchor,
            key: None,
            seen: HashSet::new(),
        });
        Ok(())
    }

    fn attach(&mut self, node: Node, anchor: usize, report: &mut Report<'_>) -> Result<(), Fatal> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err((node.place.line, format!("more than {MAX_NODES} values")));
        }
        if anchor > 0 {
            self.nodes += count(&node);
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut open.node.data {
            Data::List(items) => items.push(node),
            Data::Map(entries) => {
                if let Some((key, place)) = open.key.take() {
                    if open.seen.insert(key.clone()) {
                        entries.push(Entry {
                            key,
                            place,
                            value: node,
                        });
                    } else {
                        report.wrong(&place, "the key appears twice in this mapping");
                    }
                }
            }
            Data::Null | Data::Scalar(_) => {}
        }
        Ok(())
    }
}

/// Key path of `key` below `parent`.
pub(super) fn join(parent: &str, key: &str) -> String {
    let key = shown(key);
    if parent.is_empty() {
        key
    } else {
        format!("{parent}.{key}")
    }
}

/// Values below and including `node`; depth is bounded by `MAX_DEPTH` per alias.
fn count(node: &Node) -> usize {
    1 + match &node.data {
        Data::Null | Data::Scalar(_) => 0,
        Data::List(items) => items.iter().map(count).sum(),
        Data::Map(entries) => entries.iter().map(|e| count(&e.value)).sum(),
    }
}

/// `over` laid over `base`: mappings merge per key, everything else replaces,
/// and `null` stays `null` so that it restores the default.
pub(super) fn overlay(base: &Node, over: &Node) -> Node {
    let (Data::Map(below), Data::Map(above)) = (&base.data, &over.data) else {
        return over.clone();
    };
    let mut merged = above.clone();
    for entry in below {
        match merged.iter_mut().find(|e| e.key == entry.key) {
            Some(own) => own.value = overlay(&entry.value, &own.value),
            None => merged.push(entry.clone()),
        }
    }
    Node {
        place: over.place.clone(),
        data: Data::Map(merged),
    }
}
