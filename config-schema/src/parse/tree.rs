//! Builds the tree of one document from parser events, within the limits of `limits.rs`. Aliases
//! and merge keys are expanded as `kubectl` does, and count towards the limits expanded.

use std::borrow::Cow;

use granit_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag, options};
use rustc_hash::{FxHashMap, FxHashSet};

use super::node::{Entry, Mark, Node, Style, TreeError, Value};
use crate::diagnostics::Code;
use crate::limits::{DEPTH_MAX, NODES_PER_DOCUMENT_MAX};

/// Parses one document. `None`: there is nothing in it but space and comments.
pub(crate) fn build(text: &str) -> Result<Option<Node<'_>>, TreeError> {
    // The builder's own limit comes first: the scanner looks at most 1,024 characters ahead.
    let mut options = options! {
        flow_nesting_limit: 2048,
        block_nesting_limit: 2048,
    };
    options.set_emit_comments(false);
    let mut builder = Builder::default();
    let parser: Parser<'_, StrInput<'_>> = Parser::new_from_str_with_options(text, options);
    for event in parser {
        let (event, span) = event.map_err(|error| TreeError {
            code: Code::SyntaxError,
            message: format!("not valid YAML: {}", error.info()),
            hint: None,
            at: mark(error.marker()),
        })?;
        builder.take(event, &span)?;
    }
    Ok(builder.root)
}

fn mark(marker: &granit_parser::Marker) -> Mark {
    Mark {
        line: u32::try_from(marker.line()).unwrap_or(u32::MAX),
        column: u32::try_from(marker.col().saturating_add(1)).unwrap_or(u32::MAX),
    }
}

#[derive(Default)]
struct Builder<'t> {
    root: Option<Node<'t>>,
    open: Vec<Frame<'t>>,
    anchors: FxHashMap<usize, Anchored<'t>>,
    nodes: usize,
    documents: usize,
}

/// A list or map whose end has not come yet.
struct Frame<'t> {
    node: Node<'t>,
    anchor: usize,
    /// A map's key that waits for its value.
    key: Option<Key<'t>>,
    /// The values of `<<` keys, merged when the map ends: its own keys go before them.
    merges: Vec<Node<'t>>,
}

struct Key<'t> {
    text: Cow<'t, str>,
    at: Mark,
    /// It is `<<`; in quotes that is a key like any other.
    merges: bool,
}

/// A node with a name, for its aliases.
struct Anchored<'t> {
    node: Node<'t>,
    nodes: usize,
    depth: usize,
}

impl<'t> Builder<'t> {
    fn take(&mut self, event: Event<'t>, span: &Span) -> Result<(), TreeError> {
        let at = mark(&span.start);
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(syntax(at, "a second document begins without `---`"));
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let style = scalar_style(&text, style, tag.as_deref(), at)?;
                self.count(1, at)?;
                let node = Node {
                    at,
                    value: Value::Scalar(text, style),
                };
                self.remember(anchor, &node)?;
                self.place(node)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.open(at, Value::List(Vec::new()), anchor, tag.as_deref(), "seq")
            }
            Event::MappingStart(_, anchor, tag) => {
                self.open(at, Value::Map(Vec::new()), anchor, tag.as_deref(), "map")
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(id) => self.alias(id, at),
            Event::UnresolvedAlias(name) => {
                Err(syntax(at, format!("`*{name}` refers to no `&{name}`")))
            }
            _ => Ok(()),
        }
    }

    fn open(
        &mut self,
        at: Mark,
        value: Value<'t>,
        anchor: usize,
        tag: Option<&Tag>,
        core: &str,
    ) -> Result<(), TreeError> {
        if let Some(tag) = tag
            && !tag.is_yaml_core_schema_tag(core)
        {
            return Err(unsupported_tag(tag, at));
        }
        self.count(1, at)?;
        if self.open.len() >= DEPTH_MAX {
            return Err(too_deep(at));
        }
        self.open.push(Frame {
            node: Node { at, value },
            anchor,
            key: None,
            merges: Vec::new(),
        });
        Ok(())
    }

    fn close(&mut self) -> Result<(), TreeError> {
        let Some(mut frame) = self.open.pop() else {
            return Ok(());
        };
        for merge in std::mem::take(&mut frame.merges) {
            self.merge(&mut frame.node, merge)?;
        }
        self.remember(frame.anchor, &frame.node)?;
        self.place(frame.node)
    }

    /// Puts a finished node where it belongs: the root, an item, a key or a value.
    fn place(&mut self, node: Node<'t>) -> Result<(), TreeError> {
        let Some(frame) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut frame.node.value {
            Value::List(items) => items.push(node),
            Value::Map(entries) => match frame.key.take() {
                Some(key) if key.merges => frame.merges.push(node),
                Some(key) => entries.push(Entry {
                    key: key.text,
                    key_at: key.at,
                    value: node,
                }),
                None => frame.key = Some(key_of(node)?),
            },
            Value::Scalar(..) => {}
        }
        Ok(())
    }

    /// Adds the entries of a `<<` value that the map does not have itself.
    fn merge(&mut self, into: &mut Node<'t>, from: Node<'t>) -> Result<(), TreeError> {
        let at = from.at;
        match from.value {
            Value::Map(theirs) => {
                if let Value::Map(ours) = &mut into.value {
                    let own: FxHashSet<&str> = ours.iter().map(|e| &*e.key).collect();
                    let new = |e: &Entry<'_>| !own.contains(&*e.key);
                    let theirs: Vec<_> = theirs.into_iter().filter(new).collect();
                    ours.extend(theirs);
                }
                Ok(())
            }
            Value::List(maps) if maps.iter().all(|m| matches!(m.value, Value::Map(_))) => {
                maps.into_iter().try_for_each(|map| self.merge(into, map))
            }
            _ => Err(syntax(at, "the value of `<<` is not a map")),
        }
    }

    fn alias(&mut self, id: usize, at: Mark) -> Result<(), TreeError> {
        let Some(anchored) = self.anchors.get(&id) else {
            return Err(syntax(at, "an alias refers to the node it stands in"));
        };
        if self.open.len() + anchored.depth > DEPTH_MAX {
            return Err(too_deep(at));
        }
        self.count(anchored.nodes, at)?;
        let node = self.anchors.get(&id).map(|a| a.node.clone());
        node.map_or(Ok(()), |node| self.place(node))
    }

    fn remember(&mut self, anchor: usize, node: &Node<'t>) -> Result<(), TreeError> {
        if anchor != 0 {
            let (nodes, depth) = measure(node);
            // The copy kept for the aliases costs memory like any other node.
            self.count(nodes, node.at)?;
            let node = node.clone();
            self.anchors.insert(anchor, Anchored { node, nodes, depth });
        }
        Ok(())
    }

    fn count(&mut self, nodes: usize, at: Mark) -> Result<(), TreeError> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes <= NODES_PER_DOCUMENT_MAX {
            return Ok(());
        }
        Err(TreeError {
            code: Code::LimitExceeded,
            message: format!(
                "the document has more than {NODES_PER_DOCUMENT_MAX} values, aliases expanded"
            ),
            hint: Some("split it into several documents".to_owned()),
            at,
        })
    }
}

/// Number of nodes and levels of a tree.
fn measure(node: &Node<'_>) -> (usize, usize) {
    let add = |sum: (usize, usize), child: &Node<'_>| {
        let (nodes, depth) = measure(child);
        (sum.0 + nodes, sum.1.max(depth + 1))
    };
    match &node.value {
        Value::Scalar(..) => (1, 0),
        Value::List(items) => items.iter().fold((1, 1), add),
        Value::Map(entries) => entries.iter().map(|e| &e.value).fold((1, 1), add),
    }
}

fn key_of(node: Node<'_>) -> Result<Key<'_>, TreeError> {
    let at = node.at;
    if node.is_null() {
        return Err(syntax(at, "a key is empty"));
    }
    match node.value {
        Value::Scalar(text, style) => Ok(Key {
            merges: style == Style::Plain && text == "<<",
            text,
            at,
        }),
        _ => Err(syntax(at, "a key is a list or a map; keys are strings")),
    }
}

fn scalar_style(
    text: &str,
    style: ScalarStyle,
    tag: Option<&Tag>,
    at: Mark,
) -> Result<Style, TreeError> {
    let style = match style {
        ScalarStyle::Plain => Style::Plain,
        ScalarStyle::Literal => Style::Literal,
        _ => Style::Quoted,
    };
    let Some(tag) = tag else { return Ok(style) };
    let is = |core| tag.is_yaml_core_schema_tag(core);
    if is("str") || tag.original() == "!" {
        Ok(match style {
            Style::Plain => Style::Quoted,
            other => other,
        })
    } else if is("int") || is("float") || is("bool") || is("null") {
        use super::scalar::{Plain, resolve};
        let fits = match resolve(text) {
            Plain::Null => is("null"),
            Plain::Bool(_) => is("bool"),
            Plain::Int(_) | Plain::Big(_) | Plain::Ambiguous => is("int") || is("float"),
            Plain::Float(_) => is("float"),
            Plain::Text => false,
        };
        if fits {
            Ok(Style::Plain)
        } else {
            let message = format!("`{text}` is not what its tag {} says", tag.original());
            Err(syntax(at, message))
        }
    } else {
        Err(unsupported_tag(tag, at))
    }
}

fn unsupported_tag(tag: &Tag, at: Mark) -> TreeError {
    TreeError {
        hint: Some("remove the tag".to_owned()),
        ..syntax(
            at,
            format!(
                "the tag {} has no meaning in a Kubernetes object",
                tag.original()
            ),
        )
    }
}

fn too_deep(at: Mark) -> TreeError {
    TreeError {
        code: Code::LimitExceeded,
        message: format!("lists and maps are nested deeper than {DEPTH_MAX} levels"),
        hint: None,
        at,
    }
}

fn syntax(at: Mark, message: impl Into<String>) -> TreeError {
    TreeError {
        code: Code::SyntaxError,
        message: message.into(),
        hint: None,
        at,
    }
}
