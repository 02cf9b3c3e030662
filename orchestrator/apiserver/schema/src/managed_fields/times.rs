//! Times of entries alone are no reason to write.

use serde_json::Value;

/// The entries to write: the old ones, times and all, if the new ones differ from them in nothing but their times.
/// The caller has seen that the rest of the object is the same.
#[must_use]
pub fn keep_times(old: Option<&str>, new: Option<String>) -> Option<String> {
    let read = |text: &str| serde_json::from_str::<Vec<Value>>(text).ok();
    let both = old.and_then(read).zip(new.as_deref().and_then(read));
    let is_same = both.is_some_and(|(old, new)| {
        old.len() == new.len() && old.iter().zip(&new).all(|(old, new)| is_same_but_time(old, new))
    });
    if is_same { old.map(str::to_owned) } else { new }
}

fn is_same_but_time(old: &Value, new: &Value) -> bool {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else {
        return old == new;
    };
    let others = |map: &'_ serde_json::Map<String, Value>| map.len() - usize::from(map.contains_key("time"));
    others(old) == others(new)
        && old
            .iter()
            .all(|(name, value)| name == "time" || new.get(name) == Some(value))
}
