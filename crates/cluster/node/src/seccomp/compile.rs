//! From rules to a program of the kernel's packet filter (classic BPF), which it runs at every system call.
//!
//! Calls that are decided by their number alone come first, in chains of comparisons that share a result;
//! the kernel finds out by itself for which of them it need not run the program at all.

use std::collections::BTreeMap;

/// A system call is allowed: SECCOMP_RET_ALLOW of linux/seccomp.h.
pub(super) const ALLOW: u32 = 0x7fff_0000;

/// It fails with the error number in the low half: SECCOMP_RET_ERRNO.
pub(super) const ERRNO: u32 = 0x0005_0000;

/// The process is killed: SECCOMP_RET_KILL_PROCESS.
pub(super) const KILL_PROCESS: u32 = 0x8000_0000;

/// What programs of this architecture call by: AUDIT_ARCH_* of linux/audit.h.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xC000_00B7;

/// Numbers from here on are of another way to call on x86-64 (x32), which most kernels lack.
const FOREIGN: u32 = 0x4000_0000;

/// Most instructions: BPF_MAXINSNS.
const INSTRUCTIONS_MAX: usize = 4096;

/// Comparisons that share a result: a jump goes 255 instructions far.
const CHAIN_MAX: usize = 250;

/// What is done about system calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rules {
    /// About those that no rule is about.
    pub(super) default: u32,
    /// About a call, by its number: the first rule whose conditions hold.
    pub(super) calls: BTreeMap<u32, Vec<Rule>>,
}

/// What is done if all conditions hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) action: u32,
    pub(super) conditions: Vec<Condition>,
}

/// A condition on an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    /// Which argument, 0 to 5.
    pub(super) index: u8,
    pub(super) comparison: Comparison,
    pub(super) value: u64,
}

/// How an argument is compared with a value, both without sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// The bits of this mask are equal.
    Masked(u64),
}

/// An instruction: struct sock_filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instruction {
    code: u16,
    jump_true: u8,
    jump_false: u8,
    k: u32,
}

/// Loads a word of struct seccomp_data: BPF_LD | BPF_W | BPF_ABS.
const LOAD: u16 = 0x20;
/// BPF_ALU | BPF_AND | BPF_K.
const AND: u16 = 0x54;
/// BPF_JMP | BPF_JA, | BPF_JEQ, | BPF_JGT, | BPF_JGE, each with BPF_K.
const JUMP: u16 = 0x05;
const EQUAL: u16 = 0x15;
const GREATER: u16 = 0x25;
const GREATER_OR_EQUAL: u16 = 0x35;
/// BPF_RET | BPF_K.
const RETURN: u16 = 0x06;

/// Where the number, the architecture and the first argument are in struct seccomp_data.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;

/// The program, as an array of struct sock_filter; `None` if it is longer than the kernel takes.
pub(super) fn compile(rules: &Rules) -> Option<Vec<u8>> {
    let mut program = vec![
        plain(LOAD, ARCHITECTURE_AT),
        jump(EQUAL, ARCHITECTURE, 1, 0),
        plain(RETURN, KILL_PROCESS),
        plain(LOAD, NUMBER_AT),
        jump(GREATER_OR_EQUAL, FOREIGN, 0, 1),
        plain(RETURN, ERRNO | libc::ENOSYS.cast_unsigned()),
    ];
    let mut by_number: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let mut by_arguments = Vec::new();
    for (number, rules) in &rules.calls {
        match rules.first() {
            Some(rule) if rule.conditions.is_empty() => {
                by_number.entry(rule.action).or_default().push(*number);
            }
            Some(_) => by_arguments.push((*number, rules)),
            None => {}
        }
    }
    for (action, numbers) in by_number {
        for numbers in numbers.chunks(CHAIN_MAX) {
            chain(&mut program, numbers, action);
        }
    }
    for (number, alternatives) in by_arguments {
        let body = body(alternatives, rules.default)?;
        program.push(jump(EQUAL, number, 1, 0));
        program.push(plain(JUMP, u32::try_from(body.len()).ok()?));
        program.extend(body);
    }
    program.push(plain(RETURN, rules.default));
    (program.len() <= INSTRUCTIONS_MAX)
        .then(|| program.iter().flat_map(Instruction::bytes).collect())
}

/// Comparisons with numbers that have the same result.
fn chain(program: &mut Vec<Instruction>, numbers: &[u32], action: u32) {
    for (index, number) in numbers.iter().enumerate() {
        // Over those that follow, and the jump behind them.
        let far = u8::try_from(numbers.len() - index).unwrap_or(u8::MAX);
        program.push(jump(EQUAL, *number, far, 0));
    }
    program.push(plain(JUMP, 1));
    program.push(plain(RETURN, action));
}

/// What is done about a call by its arguments; it always returns.
fn body(rules: &[Rule], default: u32) -> Option<Vec<Instruction>> {
    let mut body = Vec::new();
    for Rule { action, conditions } in rules {
        let mut rule = Vec::new();
        for condition in conditions {
            rule.extend(test(*condition));
        }
        rule.push(plain(RETURN, *action));
        // Where a condition does not hold, to the next rule.
        let length = rule.len();
        for (index, instruction) in rule.iter_mut().enumerate() {
            if *instruction == MISS {
                *instruction = plain(JUMP, u32::try_from(length - index - 1).ok()?);
            }
        }
        body.extend(rule);
    }
    body.push(plain(RETURN, default));
    Some(body)
}

/// Stands for the jump to the next rule until it is known how far that is.
const MISS: Instruction = plain(JUMP, u32::MAX);

/// Goes on behind its end if a condition holds. An argument has two halves, of which the low one comes
/// first on the architectures there are.
fn test(condition: Condition) -> Vec<Instruction> {
    let Condition { index, comparison, value } = condition;
    let at = ARGUMENTS_AT + 8 * u32::from(index);
    let halves = |it: u64| {
        let [a, b, c, d, e, f, g, h] = it.to_be_bytes();
        (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
    };
    let (high, low) = halves(value);
    let (load_high, load_low) = (plain(LOAD, at + 4), plain(LOAD, at));
    let above = |code| {
        vec![
            load_high,
            jump(GREATER, high, 4, 0),
            jump(EQUAL, high, 0, 2),
            load_low,
            jump(code, low, 1, 0),
            MISS,
        ]
    };
    let not_above = |code| {
        vec![
            load_high,
            jump(GREATER, high, 3, 0),
            jump(EQUAL, high, 0, 3),
            load_low,
            jump(code, low, 0, 1),
            MISS,
        ]
    };
    match comparison {
        Comparison::Equal => {
            vec![load_high, jump(EQUAL, high, 1, 0), MISS, load_low, jump(EQUAL, low, 1, 0), MISS]
        }
        Comparison::NotEqual => {
            vec![load_high, jump(EQUAL, high, 0, 3), load_low, jump(EQUAL, low, 0, 1), MISS]
        }
        Comparison::Greater => above(GREATER),
        Comparison::GreaterOrEqual => above(GREATER_OR_EQUAL),
        Comparison::Less => not_above(GREATER_OR_EQUAL),
        Comparison::LessOrEqual => not_above(GREATER),
        Comparison::Masked(mask) => {
            let (mask_high, mask_low) = halves(mask);
            vec![
                load_high,
                plain(AND, mask_high),
                jump(EQUAL, high & mask_high, 1, 0),
                MISS,
                load_low,
                plain(AND, mask_low),
                jump(EQUAL, low & mask_low, 1, 0),
                MISS,
            ]
        }
    }
}

const fn plain(code: u16, k: u32) -> Instruction {
    Instruction { code, jump_true: 0, jump_false: 0, k }
}

const fn jump(code: u16, k: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code, jump_true, jump_false, k }
}

impl Instruction {
    fn bytes(&self) -> [u8; 8] {
        let ([code0, code1], [k0, k1, k2, k3]) = (self.code.to_ne_bytes(), self.k.to_ne_bytes());
        [code0, code1, self.jump_true, self.jump_false, k0, k1, k2, k3]
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Runs a program as the kernel does.
    pub(crate) fn run(program: &[u8], architecture: u32, number: u32, arguments: &[u64]) -> u32 {
        let mut data = Vec::new();
        data.extend(number.to_ne_bytes());
        data.extend(architecture.to_ne_bytes());
        data.extend([0; 8]);
        for index in 0..6 {
            data.extend(arguments.get(index).copied().unwrap_or_default().to_le_bytes());
        }
        let (instructions, rest) = program.as_chunks::<8>();
        assert_eq!(rest, [0; 0]);
        let (mut at, mut accumulator) = (0, 0_u32);
        loop {
            let [code0, code1, jump_true, jump_false, k @ ..] = instructions[at];
            let k = u32::from_ne_bytes(k);
            at += 1;
            let mut branch =
                |taken: bool| at += usize::from(if taken { jump_true } else { jump_false });
            match u16::from_ne_bytes([code0, code1]) {
                LOAD => {
                    let from = k as usize;
                    let word: [u8; 4] = data[from..from + 4].try_into().unwrap();
                    accumulator = u32::from_ne_bytes(word);
                }
                AND => accumulator &= k,
                JUMP => at += k as usize,
                EQUAL => branch(accumulator == k),
                GREATER => branch(accumulator > k),
                GREATER_OR_EQUAL => branch(accumulator >= k),
                RETURN => return k,
                code => panic!("{code:#x}"),
            }
        }
    }

    /// The same for a call of this architecture.
    pub(crate) fn call(program: &[u8], number: u32, arguments: &[u64]) -> u32 {
        run(program, ARCHITECTURE, number, arguments)
    }

    fn holds(condition: &Condition, arguments: &[u64]) -> bool {
        let (argument, value) = (arguments[usize::from(condition.index)], condition.value);
        match condition.comparison {
            Comparison::Equal => argument == value,
            Comparison::NotEqual => argument != value,
            Comparison::Less => argument < value,
            Comparison::LessOrEqual => argument <= value,
            Comparison::Greater => argument > value,
            Comparison::GreaterOrEqual => argument >= value,
            Comparison::Masked(mask) => argument & mask == value & mask,
        }
    }

    fn number() -> impl Strategy<Value = u64> {
        // Halves that are often the same.
        (0..3_u64, 0..3_u64).prop_map(|(high, low)| high << 32 | low)
    }

    fn condition() -> impl Strategy<Value = Condition> {
        let comparison = prop_oneof![
            Just(Comparison::Equal),
            Just(Comparison::NotEqual),
            Just(Comparison::Less),
            Just(Comparison::LessOrEqual),
            Just(Comparison::Greater),
            Just(Comparison::GreaterOrEqual),
            number().prop_map(Comparison::Masked),
        ];
        (0..6_u8, comparison, number()).prop_map(|(index, comparison, value)| Condition {
            index,
            comparison,
            value,
        })
    }

    fn rules() -> impl Strategy<Value = Rules> {
        let rule = (1..4_u32, prop::collection::vec(condition(), 0..3))
            .prop_map(|(action, conditions)| Rule { action, conditions });
        let calls =
            prop::collection::btree_map(0..600_u32, prop::collection::vec(rule, 1..4), 0..500);
        calls.prop_map(|calls| Rules { default: 9, calls })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 20, ..ProptestConfig::default() })]

        #[test]
        fn programs_do_what_the_rules_say(
            rules in rules(),
            calls in prop::collection::vec((0..600_u32, prop::collection::vec(number(), 6)), 50),
        ) {
            let Some(program) = compile(&rules) else { return Ok(()) };
            for (number, arguments) in calls {
                let rule = rules.calls.get(&number).and_then(|it| {
                    it.iter().find(|it| it.conditions.iter().all(|it| holds(it, &arguments)))
                });
                let expected = rule.map_or(rules.default, |it| it.action);
                prop_assert_eq!(call(&program, number, &arguments), expected);
            }
        }
    }

    #[test]
    fn other_ways_to_call_are_no_way_out() {
        let rules = Rules { default: ALLOW, calls: BTreeMap::new() };
        let program = compile(&rules).unwrap();
        assert_eq!(call(&program, 1, &[]), ALLOW);
        assert_eq!(call(&program, FOREIGN + 1, &[]), ERRNO | libc::ENOSYS.cast_unsigned());
        /// AUDIT_ARCH_I386.
        const OTHER: u32 = 0x4000_0003;
        assert_eq!(run(&program, OTHER, 1, &[]), KILL_PROCESS);
    }
}
