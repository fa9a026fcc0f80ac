//! YAML as a tree whose nodes can be found again in the text, for messages with a line.
//!
//! Used by [`super::definition`]. The YAML reader gives a place with its errors only. So the line of
//! a node is found by reading the text once more with a reader that refuses just that node.

use std::fmt;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, MapAccess,
    SeqAccess, VariantAccess, Visitor,
};

/// A node of a document.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// Nothing, or `~`.
    Null,
    /// A text.
    Text(String),
    /// What no definition has: the name of its kind.
    Other(&'static str),
    /// A list.
    List(Vec<Node>),
    /// Keys and values in their order, with those that come twice.
    Map(Vec<(Node, Node)>),
}

impl Node {
    /// The kind of the node, for a message.
    pub fn kind(&self) -> &'static str {
        match self {
            Node::Null => "nothing",
            Node::Text(_) => "a text",
            Node::Other(kind) => kind,
            Node::List(_) => "a list",
            Node::Map(_) => "a map of keys and values",
        }
    }
}

/// A step down from a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Down {
    /// To the n-th node of a list, or to the n-th value of a map.
    Value(usize),
    /// To the n-th key of a map.
    Key(usize),
}

/// Why a text is no YAML.
#[derive(Debug)]
pub struct NotYaml {
    /// From 1, where it is known.
    pub line: Option<usize>,
    /// The reader's words.
    pub what: String,
}

/// Reads a text of one document.
pub fn parse(text: &str) -> Result<Node, NotYaml> {
    serde_yaml::from_str(text).map_err(|error| NotYaml {
        line: error.location().map(|location| location.line()),
        what: error.to_string(),
    })
}

/// The line, from 1, of the node that is reached by `path` from the top.
pub fn line_of(text: &str, path: &[Down]) -> Option<usize> {
    let refused = Find(path).deserialize(serde_yaml::Deserializer::from_str(text));
    Some(refused.err()?.location()?.line())
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(Build)
    }
}

struct Build;

impl<'de> Visitor<'de> for Build {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Other("a truth value"))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Other("a number"))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Other("a number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Other("a number"))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Node, A::Error> {
        let (IgnoredAny, value) = data.variant()?;
        value.newtype_variant::<IgnoredAny>()?;
        Ok(Node::Other("a value with a tag"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = seq.next_element()? {
            nodes.push(node);
        }
        Ok(Node::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(Node::Map(pairs))
    }
}

/// Reads everything and refuses the node at the end of the path.
struct Find<'a>(&'a [Down]);

impl<'de> DeserializeSeed<'de> for Find<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Find<'_> {
    type Value = ();

    // Serde refuses all visits that are not handled here, which is what is wanted at the end.
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("something else")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Some((Down::Value(wanted), rest)) = self.0.split_first() else {
            return Err(A::Error::custom("found"));
        };
        for _ in 0..*wanted {
            seq.next_element::<IgnoredAny>()?;
        }
        seq.next_element_seed(Find(rest)).map(drop)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((down, rest)) = self.0.split_first() else {
            return Err(A::Error::custom("found"));
        };
        let (Down::Value(wanted) | Down::Key(wanted)) = down;
        for _ in 0..*wanted {
            map.next_entry::<IgnoredAny, IgnoredAny>()?;
        }
        match down {
            Down::Key(_) => map.next_key_seed(Find(&[])).map(drop),
            Down::Value(_) => {
                map.next_key::<IgnoredAny>()?;
                map.next_value_seed(Find(rest))
            }
        }
    }
}
