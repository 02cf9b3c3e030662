//! The server as clients see it: over HTTP without a socket, with kube-rs, and with kubectl over TLS.

#[cfg(test)]
mod admission;
#[cfg(test)]
mod applies;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod custom_resources;
#[cfg(test)]
mod errors;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod histories;
#[cfg(test)]
mod kubectl;
#[cfg(test)]
mod kubectl_apply;
#[cfg(test)]
mod lists;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod loops;
#[cfg(test)]
mod policies;
#[cfg(test)]
mod protobuf;
#[cfg(test)]
mod published;
#[cfg(test)]
mod roles;
#[cfg(test)]
mod round_trips;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod security;
#[cfg(test)]
mod service_numbers;
#[cfg(test)]
mod verbs;
#[cfg(test)]
mod watches;
#[cfg(test)]
mod webhooks;
#[cfg(test)]
mod workloads;
