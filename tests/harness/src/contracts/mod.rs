//! The list, and contracts by subject.

mod boundary;
mod cpu;
mod interrupts;
mod kicks;
mod memory;
mod smp;
mod state;
mod time;

use crate::Contract;

macro_rules! contracts {
    ($($module:ident: $($name:ident)+;)+) => {
        /// Every contract.
        pub fn contracts() -> Vec<Contract> {
            vec![$($(Contract { name: stringify!($name), check: $module::$name },)+)+]
        }
    };
}

contracts! {
    boundary: no_access_is_lost_or_repeated_however_often_it_is_kicked
        writes_held_back_come_in_order_and_before_run_returns
        a_triple_fault_is_an_exit
        a_step_is_one_instruction
        a_breakpoint_stops_before_its_instruction_and_is_passed;
    kicks: a_kick_before_run_is_kept
        no_kick_is_lost
        a_kick_ends_halt
        halt_costs_no_cpu_time;
    state: load_then_save_is_the_identity
        a_new_vcpu_is_that_of_reset
        a_timer_goes_on_after_load
        load_drops_translations;
    interrupts: a_message_wakes_halt
        every_message_arrives
        an_nmi_arrives
        the_pics_interrupt_is_acknowledged_once_and_delivered_once
        an_acknowledged_interrupt_survives_kicks_and_loads
        the_end_of_a_level_interrupt_reaches_the_bus
        a_started_cpu_begins_at_its_vector
        kernel_paths_do_what_the_bus_does;
    memory: rom_is_read_as_memory_and_written_as_mmio
        what_nothing_backs_is_mmio
        the_dirty_log_has_what_was_written
        locked_accesses_are_atomic_wherever_they_are
        memory_stays_there_while_the_view_changes;
    smp: code_that_rewrites_itself_runs_as_written
        code_another_cpu_rewrites_runs_as_written
        code_that_is_mapped_anew_is_the_new
        memory_is_ordered_as_the_architecture_promises;
    cpu: cpuid_is_the_profiles
        constants_of_the_profile_are_read
        what_the_profile_does_not_name_faults
        what_the_profile_is_without_faults;
    time: timers_of_every_kind_end_halt
        the_tsc_goes_on_over_moves
        the_tsc_stands_while_the_clock_stands
        timers_stand_while_the_clock_stands;
}
