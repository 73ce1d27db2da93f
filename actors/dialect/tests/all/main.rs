//! What holds for every dialect: bytes may be split anywhere, hostile bytes harm nothing, and a
//! request is either refused by name or asks the target what the client asked.

mod corpus;
mod parsers;
mod requests;
mod strategies;
