; L16: what a checker sees is enough. Short form: in a ranking by key, if everything before place w fails a gate and w
; passes all, then w has the least key of all that pass. Full form: if w passes, and each other either fails or has a
; greater key, the same. j: any other place.
; code: certificates.short, certificates.full, tools.checker.verify
(set-logic ALL)
(declare-const w Int) (declare-const j Int) (declare-const key_w Int) (declare-const key_j Int)
(declare-const passes_w Bool) (declare-const passes_j Bool)
(push 1) ; expect unsat: short form; the ranking is sorted, the root binds it
(assert (and passes_w (=> (< w j) (< key_w key_j)) (=> (< j w) (not passes_j)) (not (= j w))))
(assert passes_j)
(assert (not (< key_w key_j)))
(check-sat)
(pop 1)
(push 1) ; expect unsat: full form
(assert (and passes_w (or (not passes_j) (< key_w key_j))))
(assert passes_j)
(assert (not (< key_w key_j)))
(check-sat)
(pop 1)
(push 1) ; expect sat: a list that merely contains the winner, not as a beginning of the ranking, proves nothing
(assert (and passes_w (=> (< w j) (< key_w key_j)) (not (= j w))))
(assert passes_j)
(assert (not (< key_w key_j)))
(check-sat)
(pop 1)
