//! Sets of paths into an object, and their JSON (`FieldsV1`).
//!
//! A set is a tree. A node is a member, has members below it, or both; nodes are sorted.

use std::{borrow::Cow, cmp::Ordering, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor},
};

use super::element::Element;

/// A set of paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Set<'a>(Vec<Node<'a>>);

/// One step, whether the path that ends here is in the set, and what is below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node<'a> {
    pub(super) element: Element<'a>,
    pub(super) member: bool,
    pub(super) children: Set<'a>,
}

impl Node<'_> {
    fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }
}

impl<'a> Set<'a> {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn nodes(&self) -> &[Node<'a>] {
        &self.0
    }

    /// The set of one path.
    pub(super) fn of(path: &[&'a str]) -> Self {
        let Some((first, rest)) = path.split_first() else { return Self::default() };
        let (member, children) = (rest.is_empty(), Self::of(rest));
        Self(vec![Node { element: Element::field(first), member, children }])
    }

    /// Adds a node. One that is greater than all others, which is the rule, costs least. A node
    /// with the same step takes up the new one.
    pub(super) fn add(&mut self, node: Node<'a>) {
        if node.is_empty() {
            return;
        }
        if self.0.last().is_none_or(|last| last.element < node.element) {
            self.0.push(node);
            return;
        }
        match self.0.binary_search_by(|it| it.element.cmp(&node.element)) {
            Ok(at) => {
                if let Some(found) = self.0.get_mut(at) {
                    found.member |= node.member;
                    found.children = std::mem::take(&mut found.children).union(node.children);
                }
            }
            Err(at) => self.0.insert(at, node),
        }
    }

    /// The node of a step.
    pub(super) fn get(&self, element: &Element<'_>) -> Option<&Node<'a>> {
        let at = self.0.binary_search_by(|it| order(&it.element, element)).ok()?;
        self.0.get(at)
    }

    /// What is in one of the two.
    pub(super) fn union(self, other: Self) -> Self {
        if self.is_empty() {
            return other;
        }
        let mut all = Vec::with_capacity(self.0.len() + other.0.len());
        let (mut left, mut right) = (self.0.into_iter().peekable(), other.0.into_iter().peekable());
        loop {
            let next = match (left.peek(), right.peek()) {
                (Some(a), Some(b)) => a.element.cmp(&b.element),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => break,
            };
            match next {
                Ordering::Less => all.extend(left.next()),
                Ordering::Greater => all.extend(right.next()),
                Ordering::Equal => {
                    if let (Some(a), Some(b)) = (left.next(), right.next()) {
                        let (member, children) =
                            (a.member | b.member, a.children.union(b.children));
                        all.push(Node { element: a.element, member, children });
                    }
                }
            }
        }
        Self(all)
    }

    /// What is in one of many: each path is copied as often as their number can be halved.
    pub(super) fn union_all(mut sets: Vec<Self>) -> Self {
        while sets.len() > 1 {
            let mut rest = sets.into_iter();
            let pair = || {
                let one = rest.next()?;
                Some(one.union(rest.next().unwrap_or_default()))
            };
            sets = std::iter::from_fn(pair).collect();
        }
        sets.pop().unwrap_or_default()
    }

    /// What is in both.
    pub(super) fn intersection(self, other: &Set<'_>) -> Self {
        self.pairs(other, |node, other| {
            let other = other?;
            let (member, children) = (node.member && other.member, &other.children);
            Some(Node { member, children: node.children.intersection(children), ..node })
        })
    }

    /// What is here and not in `other`.
    pub(super) fn difference(self, other: &Set<'_>) -> Self {
        self.pairs(other, |node, other| {
            let Some(other) = other else { return Some(node) };
            let (member, children) = (node.member && !other.member, &other.children);
            Some(Node { member, children: node.children.difference(children), ..node })
        })
    }

    /// What is here and neither in `other` nor below what is in `other`.
    pub(super) fn without(self, other: &Set<'_>) -> Self {
        self.pairs(other, |node, other| {
            let Some(other) = other else { return Some(node) };
            let children = &other.children;
            (!other.member).then(|| Node { children: node.children.without(children), ..node })
        })
    }

    /// Every node here with its counterpart in `other`, made into a node of the result.
    fn pairs(
        self,
        other: &Set<'_>,
        make: impl Fn(Node<'a>, Option<&Node<'_>>) -> Option<Node<'a>>,
    ) -> Self {
        let mut others = other.0.as_slice();
        let make = |node: Node<'a>| {
            let is_before = |it: &Node<'_>| order(&it.element, &node.element).is_lt();
            // The next one is nearly always it; a few among many must not walk past them all.
            if others.first().is_some_and(is_before) {
                others = others.get(others.partition_point(is_before)..).unwrap_or_default();
            }
            let same = others.first().filter(|it| order(&it.element, &node.element).is_eq());
            make(node, same).filter(|it| !it.is_empty())
        };
        Self(self.0.into_iter().filter_map(make).collect())
    }

    /// The same, borrowing nothing.
    pub(super) fn into_owned(self) -> Set<'static> {
        let owned = |node: Node<'a>| Node {
            element: node.element.into_owned(),
            member: node.member,
            children: node.children.into_owned(),
        };
        Set(self.0.into_iter().map(owned).collect())
    }

    /// The paths as messages show them: the members of a level, then those below them.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.list("", &mut paths);
        paths
    }

    fn list(&self, prefix: &str, paths: &mut Vec<String>) {
        let members = self.0.iter().filter(|it| it.member);
        paths.extend(members.map(|it| format!("{prefix}{}", it.element)));
        for node in self.0.iter().filter(|it| !it.children.is_empty()) {
            node.children.list(&format!("{prefix}{}", node.element), paths);
        }
    }

    /// Writes `FieldsV1`.
    pub(super) fn write(&self, json: &mut Vec<u8>) -> serde_json::Result<()> {
        let mut key = String::with_capacity(64);
        self.write_node(false, &mut key, json)
    }

    fn write_node(
        &self,
        member: bool,
        key: &mut String,
        json: &mut Vec<u8>,
    ) -> serde_json::Result<()> {
        json.push(b'{');
        if member && !self.is_empty() {
            json.extend_from_slice(br#"".":{}"#);
        }
        for node in &self.0 {
            if json.last() != Some(&b'{') {
                json.push(b',');
            }
            key.clear();
            node.element.write(key);
            serde_json::to_writer(&mut *json, key)?;
            json.push(b':');
            node.children.write_node(node.member, key, json)?;
        }
        json.push(b'}');
        Ok(())
    }
}

/// [`Element::cmp`] for elements that live differently long.
fn order(a: &Element<'_>, b: &Element<'_>) -> Ordering {
    a.cmp(b)
}

impl<'de: 'a, 'a> Deserialize<'de> for Set<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(deserializer.deserialize_any(Branch)?.children)
    }
}

/// Reads what is below a step.
struct Branch;

struct Below<'de> {
    member: bool,
    children: Set<'de>,
}

impl<'de> DeserializeSeed<'de> for Branch {
    type Value = Below<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Branch {
    type Value = Below<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a set of fields")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Below { member: true, children: Set::default() })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut member, mut nodes) = (false, Vec::new());
        while let Some(Key(key)) = map.next_key()? {
            if key == "." {
                member = true;
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            match Element::read(key).map_err(A::Error::custom)? {
                Some(element) => {
                    let Below { member, children } = map.next_value_seed(Self)?;
                    nodes.push(Node { element, member, children });
                }
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        // In any order: whoever wrote it need not have been us.
        nodes.sort_by(|one, other| one.element.cmp(&other.element));
        let mut children = Set::default();
        nodes.into_iter().for_each(|it| children.add(it));
        Ok(Below { member: member || children.is_empty(), children })
    }
}

/// A key, borrowed where it has no escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);
