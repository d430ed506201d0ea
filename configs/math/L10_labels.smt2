; L10: data classes (level, tags) are a lattice: the join is the least upper bound, and flowing to what is cleared is
; transitive. A service that is cleared for the join is cleared for the parts.
; code: routing.first_failure
(set-logic ALL)
(define-sort Bits () (_ BitVec 64))
(declare-datatypes ((Label 0)) (((label (v Int) (t Bits)))))
(define-fun sub ((a Bits) (b Bits)) Bool (= (bvand a (bvnot b)) #x0000000000000000))
(define-fun le ((a Label) (b Label)) Bool (and (<= (v a) (v b)) (sub (t a) (t b))))
(define-fun join ((a Label) (b Label)) Label (label (ite (>= (v a) (v b)) (v a) (v b)) (bvor (t a) (t b))))
(declare-const a Label) (declare-const b Label) (declare-const c Label)
(push 1) ; expect unsat: least upper bound, transitive
(assert (not (and (le a (join a b)) (le b (join a b)) (=> (and (le a c) (le b c)) (le (join a b) c)) (=> (and (le a b) (le b c)) (le a c)))))
(check-sat)
(pop 1)
(push 1) ; expect sat: with the lower of two levels, data may come to who is not cleared for it
(assert (le (label (ite (<= (v a) (v b)) (v a) (v b)) (bvor (t a) (t b))) c))
(assert (not (le a c)))
(check-sat)
(pop 1)
