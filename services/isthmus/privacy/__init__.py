"""Protection of answers: noise and its cost, consistency, disclosure control, figures with honest bars. No I/O.

plan --(mechanism)--> what is measured, with which noise, at which cost
exact sums --(release)--> Answer under `dp`            --(figures)--> value, low, high
           --(disclosure)--> Answer, or Withheld, under `disclosure_controlled`
"""
