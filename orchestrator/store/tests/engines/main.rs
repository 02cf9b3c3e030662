//! Tests of the engines through their public interface: conformance, random histories, and killed processes.

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod histories;
#[cfg(test)]
mod kill;
