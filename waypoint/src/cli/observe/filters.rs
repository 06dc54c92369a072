//! The filters of `cairn observe` as flags. `--not` turns the filter that follows it round. What there is to
//! filter by is in [`crate::hubble::ask`].

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches, value_parser};

use crate::hubble::ask::{self, Flag, List};
use crate::hubble::messages::FlowFilter;

/// What the server is asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filters {
    /// One of them must match, if there is one.
    pub wanted: Vec<FlowFilter>,
    /// None of them may match.
    pub unwanted: Vec<FlowFilter>,
}

impl clap::Args for Filters {
    fn augment_args(command: Command) -> Command {
        let not = Arg::new("not")
            .long("not")
            .num_args(0)
            .default_missing_value("true")
            .value_parser(value_parser!(String))
            .action(ArgAction::Append)
            .help_heading("Filters")
            .help("Not what the next filter matches");
        let args = ask::all().map(|flag| {
            Arg::new(flag.name)
                .long(flag.name)
                .value_name(flag.value)
                .value_parser(value_parser!(String))
                .action(ArgAction::Append)
                .help_heading("Filters")
                .help(flag.help)
        });
        command.arg(not).args(args)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Filters {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given: Vec<(usize, &Flag, &String)> = ask::all()
            .flat_map(|flag| {
                let places = matches.indices_of(flag.name).into_iter().flatten();
                let values = matches.get_many::<String>(flag.name).into_iter().flatten();
                places.zip(values).map(move |(at, value)| (at, flag, value))
            })
            .collect();
        given.sort_by_key(|(at, ..)| *at);
        let mut nots = matches.indices_of("not").into_iter().flatten().peekable();
        let (mut wanted, mut unwanted) = (List::default(), List::default());
        for (at, flag, value) in given {
            let mut turned = false;
            while nots.next_if(|not| *not < at).is_some() {
                turned = true;
            }
            let list = if turned { &mut unwanted } else { &mut wanted };
            flag.add(list, value)
                .map_err(|why| wrong(flag.name, value, &why))?;
        }
        if nots.peek().is_some() {
            let why = "--not must stand before a filter\n";
            return Err(clap::Error::raw(
                clap::error::ErrorKind::ValueValidation,
                why,
            ));
        }
        Ok(Self {
            wanted: wanted.filters(),
            unwanted: unwanted.filters(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn wrong(flag: &str, value: &str, why: &str) -> clap::Error {
    let text = format!("invalid value '{value}' for '--{flag}': {why}\n");
    clap::Error::raw(clap::error::ErrorKind::ValueValidation, text)
}
