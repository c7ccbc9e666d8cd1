//! Reading mappings and lists of the tree; every surprise becomes a problem.

use super::problem::Report;
use super::tree::{Data, Entry, Node, shown};

impl Node {
    /// How the value looks in a message.
    pub fn shown(&self) -> String {
        match &self.data {
            Data::Null => "null".to_owned(),
            Data::Scalar(text) => shown(text),
            Data::List(items) if items.is_empty() => "[]".to_owned(),
            Data::List(_) => "[...]".to_owned(),
            Data::Map(entries) if entries.is_empty() => "{}".to_owned(),
            Data::Map(_) => "{...}".to_owned(),
        }
    }

    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        match &self.data {
            Data::Scalar(text) => Some(text),
            _ => None,
        }
    }

    /// Whether the value is a list without entries.
    pub fn is_empty_list(&self) -> bool {
        matches!(&self.data, Data::List(items) if items.is_empty())
    }

    /// Whether the value is `off` or `false`, which are the same.
    pub fn is_off(&self) -> bool {
        matches!(
            self.text(),
            Some("off" | "Off" | "OFF" | "false" | "False" | "FALSE")
        )
    }

    /// The value as a mapping with no other than the `known` keys.
    pub fn fields(&self, known: &[&str], report: &mut Report<'_>) -> Option<Fields<'_>> {
        let Data::Map(entries) = &self.data else {
            let allowed = format!("a mapping with the keys {}", known.join(", "));
            report.invalid(&self.place, self.shown(), allowed);
            return None;
        };
        for entry in entries {
            if !known.contains(&entry.key.as_str()) {
                report.wrong(&entry.place, unknown_key(&entry.key, known));
            }
        }
        Some(Fields {
            node: self,
            entries,
        })
    }

    /// The value as a list.
    pub fn list(&self, what: &str, report: &mut Report<'_>) -> Option<&[Node]> {
        match &self.data {
            Data::List(items) => Some(items),
            _ => {
                report.invalid(&self.place, self.shown(), format!("a list of {what}"));
                None
            }
        }
    }
}

/// A mapping whose keys were checked.
#[derive(Clone, Copy)]
pub(super) struct Fields<'n> {
    /// The mapping itself.
    pub node: &'n Node,
    entries: &'n [Entry],
}

impl<'n> Fields<'n> {
    /// The value of `key`, `null` included.
    pub fn raw(&self, key: &str) -> Option<&'n Node> {
        self.entries.iter().find(|e| e.key == key).map(|e| &e.value)
    }

    /// The value of `key`; absent and `null` are the same.
    pub fn get(&self, key: &str) -> Option<&'n Node> {
        self.raw(key).filter(|v| !matches!(v.data, Data::Null))
    }

    /// The decoded value of `key`, `None` if absent or wrong.
    pub fn value<T>(
        &self,
        key: &str,
        report: &mut Report<'_>,
        decode: impl FnOnce(&'n Node, &mut Report<'_>) -> Option<T>,
    ) -> Option<T> {
        self.get(key).and_then(|node| decode(node, report))
    }

    /// As `value`, and absence is a problem too.
    pub fn required<T>(
        &self,
        key: &str,
        allowed: &str,
        report: &mut Report<'_>,
        decode: impl FnOnce(&'n Node, &mut Report<'_>) -> Option<T>,
    ) -> Option<T> {
        if self.get(key).is_none() {
            let mut place = self.node.place.clone();
            place.path = super::tree::join(&place.path, key);
            report.missing(&place, allowed);
        }
        self.value(key, report, decode)
    }

    /// Keys of the contract that this version has no use for.
    pub fn refuse_keys(&self, keys: &[&str], report: &mut Report<'_>) {
        for key in keys {
            if let Some(node) = self.get(key) {
                report.unsupported(&node.place, format!("`{key}`"), "no such key");
            }
        }
    }
}

fn unknown_key(key: &str, known: &[&str]) -> String {
    let nearest = known
        .iter()
        .map(|k| (distance(key, k), *k))
        .min()
        .filter(|(d, k)| *d <= 2 && *d < k.len());
    match nearest {
        Some((_, near)) => format!("unknown key; did you mean `{near}`?"),
        None => format!("unknown key; known here: {}", known.join(", ")),
    }
}

/// Edits (insert, delete, replace) between two keys; long ones are never near.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > 64 {
        return usize::MAX;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let above = row.get(j + 1).copied().unwrap_or(usize::MAX);
            let best = (diagonal + usize::from(ca != *cb))
                .min(left + 1)
                .min(above.saturating_add(1));
            diagonal = above;
            if let Some(cell) = row.get_mut(j) {
                *cell = left;
            }
            left = best;
        }
        if let Some(cell) = row.last_mut() {
            *cell = left;
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::distance;

    #[test]
    fn distance_counts_edits() {
        for (a, b, want) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("wieght", "weight", 2),
            ("backend", "backends", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), want, "{a} {b}");
        }
    }
}
